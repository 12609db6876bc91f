"""Which token vLLM, with our plugins, expects after each prompt: the script of cpu/test_architectures.py.

    python next_tokens.py < {"prompts": [...], "models": [{"model": DIR, "dtype": "float32", "adapter": DIR}]}

One process starts one engine after the other, because its imports take longer than they do. Prints for each model what
the base model and the adapter say: for each prompt the log probability of every token.
"""

import json
import os
import sys

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["OMP_NUM_THREADS"] = "1"

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from server.vllm_server import LORA_MODULES


def said(model: str, dtype: str, adapter: str, prompts: list[str]) -> dict[str, list[list[float]]]:
    llm = LLM(
        model,
        dtype=dtype,
        enable_lora=True,
        max_loras=1,
        max_lora_rank=8,
        lora_target_modules=LORA_MODULES,
        max_model_len=256,
        max_logprobs=-1,
        kv_cache_memory_bytes=2**26,
        gpu_memory_utilization=0.01,
        enforce_eager=True,
        disable_log_stats=True,
    )
    words = len(llm.get_tokenizer())
    sampling = SamplingParams(temperature=0, max_tokens=1, logprobs=words)

    def expected(voice: LoRARequest | None) -> list[list[float]]:
        outputs = llm.generate(prompts, sampling, lora_request=voice, use_tqdm=False)
        found = [output.outputs[0].logprobs[0] for output in outputs]
        return [[of_prompt[token].logprob for token in range(words)] for of_prompt in found]

    return {"base": expected(None), "voice": expected(LoRARequest("voice", 1, adapter))}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps([said(**each, prompts=given["prompts"]) for each in given["models"]]))
