"""Writers of an evaluation's answers: the models in this process, or a Mailwright server over its API.

Both take chat messages and apply the base model's chat template. Only the models in this process can score texts.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adapters.emails.prompts import Message
from adapters.errors import ServerProblem
from adapters.settings import is_loopback
from adapters.store.version import Version
from trainer.evaluation.results import Answer

if TYPE_CHECKING:
    from trainer.compute.losses import Loss

# The base model's name, here and in the server.
BASE = "base"
# The shipped emails have at most 150 words, about 190 fit; the base model rambles on to any limit.
MAX_NEW_TOKENS = 256
TEMPERATURE = 0.7
BATCH_PROMPTS = 48
# As many as the server's batch holds comfortably on two cores.
CONCURRENT_REQUESTS = 8
DEFAULT_SERVER = "http://127.0.0.1:8000"

Prompt = Sequence[Message]
# Called with the emails written since the last call: fractions of one while a batch is being written.
Advance = Callable[[float], None]


class InProcess:
    """One model: the base model with all adapters beside it. Models are named `base` or by a version's id."""

    through, can_score = "in process", True

    def __init__(self, base: Path, adapters: Mapping[str, Path]) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        from trainer.compute.attention import ATTENTION
        from trainer.compute.decoding import ends
        from trainer.compute.device import choose
        from trainer.compute.packed import pack

        self.tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
        logging.disable_progress_bar()
        chosen = choose()
        self.device = f"{chosen.kind} {chosen.dtype}"
        loaded = AutoModelForCausalLM.from_pretrained(base, dtype=chosen.dtype, attn_implementation=ATTENTION)
        # PEFT refuses names such as "lora_", which a version's id may contain.
        self._names = {version: f"adapter{number}" for number, version in enumerate(adapters)}
        (first, path), *others = adapters.items()
        self.model = PeftModel.from_pretrained(loaded.to(chosen.kind), str(path), adapter_name=self._names[first])
        for version, path in others:
            self.model.load_adapter(str(path), adapter_name=self._names[version])
        self.model.eval()
        pack(self.model)
        self._ends = ends(self.model, self.tokenizer)

    def write(self, model: str, prompts: Sequence[Prompt], seed: int | None, advance: Advance) -> list[Answer]:
        """One answer for each prompt, in order; greedy, or sampled with a seed."""
        # Prompts of similar length share a batch, because each is padded to the longest.
        encoded = [self._encoded(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda number: len(encoded[number]))
        written: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH_PROMPTS):
            numbers = order[start : start + BATCH_PROMPTS]
            answers = self._write_batch(model, [encoded[number] for number in numbers], seed, advance)
            written.update(zip(numbers, answers, strict=True))
        return [written[number] for number in range(len(prompts))]

    def losses(self, model: str, prompts: Sequence[Prompt], texts: Sequence[str], advance: Advance) -> list[Loss]:
        """How well `model` expected each text after its prompt."""
        from trainer.compute.losses import losses

        rows = []
        for prompt, text in zip(prompts, texts, strict=True):
            before = self._encoded(prompt)
            scored = [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]
            rows.append((before + scored, len(before)))
        with self._using(model):
            return losses(self.model, rows, advance)

    def forgetting(self, model: str, fingerprint: str, advance: Advance) -> dict[str, float]:
        from trainer.evaluation import forgetting

        self.model.set_adapter(self._names[model])
        return forgetting.measure(self.model, self.tokenizer, fingerprint, advance)

    def _encoded(self, prompt: Prompt) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def _using(self, model: str) -> Any:
        """A context in which `self.model` is `model`."""
        if model == BASE:
            return self.model.disable_adapter()
        self.model.set_adapter(self._names[model])
        return nullcontext()

    def _write_batch(self, model: str, batch: list[list[int]], seed: int | None, advance: Advance) -> list[Answer]:
        import torch

        from trainer.compute.decoding import decode

        def step(texts: int) -> None:
            advance(texts / MAX_NEW_TOKENS)

        temperature, generator = None, None
        if seed is not None:
            temperature, generator = TEMPERATURE, torch.Generator(self.model.device).manual_seed(seed)
        with torch.inference_mode(), self._using(model):
            rows = decode(self.model, batch, self._ends, MAX_NEW_TOKENS, temperature, generator, step)
        # What a text that ended early leaves of its share.
        advance(len(batch) - sum(map(len, rows)) / MAX_NEW_TOKENS)
        return [
            Answer(self.tokenizer.decode(row, skip_special_tokens=True).strip(), row[-1] in self._ends) for row in rows
        ]


class ThroughServer:
    """A Mailwright server, called over its API by several threads at once. It cannot score texts."""

    device, can_score = "", False

    def __init__(self, address: str) -> None:
        import openai

        self.through = address
        self._client = openai.OpenAI(
            base_url=f"{address}/v1",
            api_key=os.environ.get("MAILWRIGHT_API_KEY") or "none",
            max_retries=5,
            timeout=600,
            # Mail for a server on this machine bypasses any proxy of the environment.
            http_client=openai.DefaultHttpxClient(trust_env=False) if _local(address) else None,
        )

    def write(self, model: str, prompts: Sequence[Prompt], seed: int | None, advance: Advance) -> list[Answer]:
        chance = random.Random(seed)
        # One seed for each request, because the server seeds requests, not batches.
        seeds = [None if seed is None else chance.randrange(2**31) for _ in prompts]
        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
            requests = [pool.submit(self._request, model, *each) for each in zip(prompts, seeds, strict=True)]
            try:
                for done in as_completed(requests):
                    done.result()
                    advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [done.result() for done in requests]

    def losses(self, model: str, prompts: Sequence[Prompt], texts: Sequence[str], advance: Advance) -> list[Loss]:
        return []

    def forgetting(self, model: str, fingerprint: str, advance: Advance) -> dict[str, float]:
        return {}

    def _request(self, model: str, prompt: Prompt, seed: int | None) -> Answer:
        import openai

        request: dict[str, Any] = {"model": model, "messages": list(prompt), "max_tokens": MAX_NEW_TOKENS}
        request |= {"temperature": 0} if seed is None else {"temperature": TEMPERATURE, "seed": seed}
        try:
            answer = self._client.chat.completions.create(**request).choices[0]
        except openai.OpenAIError as exc:
            raise ServerProblem(
                f"the server at {self.through} did not answer for {model}: {exc}"[:500],
                "look at its log, or evaluate in this process: --server none",
            ) from exc
        return Answer((answer.message.content or "").strip(), answer.finish_reason == "stop")


Writer = InProcess | ThroughServer


def server_address(text: str) -> str:
    """`http://host:port`, without a slash or /v1 at the end."""
    return text.strip().rstrip("/").removesuffix("/v1")


def reason_against_server(address: str, versions: Sequence[Version], base_name: str) -> str:
    """Why the server at `address` cannot write for these versions of this base model; empty if it can."""
    import httpx

    key = os.environ.get("MAILWRIGHT_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=address, headers=headers, timeout=5, trust_env=not _local(address)) as client:
            client.get("/health").raise_for_status()
            listed = client.get("/v1/models", params={"versions": "all"})
            listed.raise_for_status()
            cards = {card["id"]: card for card in listed.json()["data"]}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as exc:
        return f"no Mailwright server answers at {address} ({type(exc).__name__})"
    # The name is enough, because a server refuses adapters of another base model.
    served = str(cards.get(BASE, {}).get("root"))
    if served != base_name:
        return f"the server at {address} serves the base model {served}, not {base_name}"
    missing = [v.id for v in versions if cards.get(v.id, {}).get("digest") != v.digest]
    return f"the server at {address} does not know {' and '.join(missing)}" if missing else ""


def _local(address: str) -> bool:
    return is_loopback(urlsplit(address).hostname or "")
