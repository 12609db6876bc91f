"""The base model in one `LLM.generate` list with adapters and without, in bf16: the script of cpu/test_lora.py.

    python generate_mixed.py BASE ADAPTER... < {"prompts": [...], "max_loras": [4, 1]}

Both lists have the same length and the same prompts, so that every product has the same shape: what differs in the base
model's rows then comes from the adapters, and not from a sum in another order.
"""

import json
import os
import sys

# One process instead of three, and one thread: where the machine has other work, threads wait for one another.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from server.vllm_server import LORA_MODULES

Answers = list[list[int]]


def answers(base: str, adapters: list[str], prompts: list[str], max_loras: int) -> dict[str, Answers]:
    llm = LLM(
        base,
        dtype="bfloat16",
        enable_lora=True,
        max_loras=max_loras,
        max_lora_rank=16,
        lora_target_modules=LORA_MODULES,
        max_model_len=2048,
        kv_cache_memory_bytes=2**28,
        # Where a size is given, vLLM only checks at the start that this share of a GPU is free.
        gpu_memory_utilization=0.01,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )
    voices = [LoRARequest(f"voice{number}", number + 1, path) for number, path in enumerate(adapters[:max_loras])]
    sampling = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)

    def generate(others: list[LoRARequest | None]) -> Answers:
        requests = [request for other in others for request in (None, other)]
        outputs = llm.generate([p for p in prompts for _ in range(2)], sampling, lora_request=requests, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    # First a list that fills every slot.
    generate([voices[number % len(voices)] for number in range(len(prompts))])
    alone = generate([None] * len(prompts))
    mixed = generate([voices[number % len(voices)] for number in range(len(prompts))])
    return {"alone": alone[::2], "mixed": mixed[::2], "voices": mixed[1::2]}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    _, base, *adapters = sys.argv
    print(json.dumps({count: answers(base, adapters, given["prompts"], count) for count in given["max_loras"]}))
