"""May vLLM serve this adapter on this base model? Every reason against it at once.

vLLM copies a smaller adapter silently into its slots, never compares the base model, and leaves a broken adapter half
loaded. So the files are checked before: at publish, import, promote and first load, by the same function. It trusts
nothing that it reads: files may be hostile.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from adapters.models.base_models import BaseModel, shaping_config
from adapters.models.tensors import CODE, Header, expected_shape, header_of, largest_file, partner, values_of
from adapters.store.manifest import Manifest
from adapters.store.store import content_digest
from adapters.store.version import CARD, CONFIG, MANIFEST, WEIGHTS

# The largest that vLLM serves, and so the largest --max-rank.
MAX_RANK = 512
# JSON allows integers that no float holds; vLLM divides this one by the rank.
MAX_ALPHA = 1_000_000
# A manifest or a configuration has a few thousand.
MAX_JSON_BYTES = 2**20
# Where no base model limits the size of an adapter.
MAX_WEIGHTS_BYTES = 4 * 2**30

# vLLM's peft_helper.py refuses these, or would serve something else than PEFT computes.
REFUSED_FEATURES = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA biases",
    "modules_to_save": "fully trained modules",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
    "trainable_token_indices": "trained tokens",
    "target_parameters": "trained parameters",
    "fan_in_fan_out": "transposed weights",
}
# The others (PiSSA, OLoRA, CorDA, LoftQ) change the base model's own weights.
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def reasons_against(
    directory: Path, base: BaseModel | None, max_rank: int = MAX_RANK, published: bool = True
) -> list[str]:
    """Every reason why vLLM may not serve the adapter in `directory` on `base`; empty if it may.

    Without `base` only what holds for any base model is checked. A `published` directory is a version with a manifest;
    any other may hold more files, and only configuration and weights count. No content of the files makes this raise.
    """
    adapter = _Adapter(directory, base, max_rank, published)
    reasons: list[str] = []
    for check in (
        adapter.check_files,
        adapter.check_manifest,
        adapter.check_base_model,
        adapter.check_config,
        adapter.check_header,
        adapter.check_values,
        adapter.check_digest,
    ):
        try:
            for reason in check():
                reasons.append(reason)
        except ValueError as exc:
            reasons.append(str(exc))
        except OSError as exc:
            return [*reasons, f"{Path(str(exc.filename)).name} cannot be read ({exc.strerror})"]
    return reasons


class _Adapter:
    """The files of an adapter and what the checks have read of them so far.

    A check yields reasons, or raises ValueError with the one after which it cannot continue. It yields nothing where an
    earlier check could not read what it needs.
    """

    def __init__(self, directory: Path, base: BaseModel | None, max_rank: int, published: bool) -> None:
        self.directory = directory
        self.base = base
        self.max_rank = max_rank
        self.published = published
        self.files: dict[str, os.stat_result] = {}
        self.manifest: Manifest | None = None
        self.config: dict[str, Any] | None = None
        self.header: Header | None = None

    def check_files(self) -> Iterator[str]:
        if self.directory.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "it is a symbolic link", str(self.directory))
        self.files = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(self.directory)}
        wanted = {CONFIG, WEIGHTS, MANIFEST} if self.published else {CONFIG, WEIGHTS}
        known = wanted | {CARD} if self.published else wanted
        for name, found in sorted(self.files.items()):
            if name in known and stat.S_ISLNK(found.st_mode):
                yield f"{name} is a symbolic link"
            elif name in known and not stat.S_ISREG(found.st_mode):
                yield f"{name} is not a plain file"
            elif self.published and name.endswith(CODE):
                yield f"{name[:80]!r} may run code when it is read: only safetensors are served"
            elif self.published and name not in known:
                yield f"{name[:80]!r} does not belong to a version"
        for name in sorted(wanted - self.files.keys()):
            instead = next((other for other in sorted(self.files) if name == WEIGHTS and other.endswith(CODE)), None)
            may_run_code = f", and {instead[:80]!r} may run code when it is read" if instead else ""
            yield f"{name} is missing{may_run_code}"

    def check_manifest(self) -> Iterator[str]:
        content = self._json(MANIFEST) if self.published else None
        if content is None:
            return
        try:
            self.manifest = Manifest.model_validate(content)
        except ValidationError as exc:
            wrong = ", ".join(sorted({".".join(map(str, error["loc"])) for error in exc.errors()}))
            yield f"{MANIFEST} is not the manifest of a version ({wrong[:200] or 'not an object'})"

    def check_base_model(self) -> Iterator[str]:
        if not self.manifest or not self.base or self.manifest.base_fingerprint == self.base.fingerprint:
            return
        trained, served = self.manifest.base_fingerprint[:19], self.base.fingerprint[:19]
        yield (
            f"it was trained on {self.manifest.base_name} ({trained}...), and this server serves {self.base.name} "
            f"({served}...): serve it with `server --base {shlex.quote(self.manifest.base)}`"
        )
        # Its tensors need not fit this base model: hundreds of reasons that all mean this one.
        self.base = None

    def check_config(self) -> Iterator[str]:
        config = self._json(CONFIG)
        if isinstance(config, dict):
            self.config = config
            yield from _config_reasons(config, self.max_rank)
        elif config is not None:
            yield f"{CONFIG} is not a PEFT LoRA configuration"

    def check_header(self) -> Iterator[str]:
        if not self._is_plain(WEIGHTS) or not self._is_plain(CONFIG) or self.files[CONFIG].st_size > MAX_JSON_BYTES:
            return
        shape = shaping_config(self.base.path) if self.base else None
        limit, size = largest_file(self.max_rank, shape) if shape else MAX_WEIGHTS_BYTES, self.files[WEIGHTS].st_size
        if size > limit:
            raise ValueError(f"{WEIGHTS} has {size} bytes, and could need {limit} at most")
        try:
            self.header = header_of(self.directory / WEIGHTS)
        except ValueError as exc:
            raise ValueError(f"{WEIGHTS} is damaged ({exc})") from exc
        # With a rank_pattern every tensor has its own.
        rank = self.config.get("r") if self.config and not self.config.get("rank_pattern") else None
        usual = isinstance(rank, int) and 1 <= rank <= MAX_RANK
        yield from _header_reasons(self.header, rank if usual else None, shape, self.max_rank)

    def check_values(self) -> Iterator[str]:
        """Reads every tensor once, in the order of the file."""
        if self.header is None:
            return
        nonzero: set[str] = set()
        finite = True
        for tensor, data in self.header.read(self.directory / WEIGHTS):
            values = values_of(tensor, data)
            if values and not values.finite:
                finite = False
                yield f"tensor {tensor.name!r} holds NaN or infinity"
            if values and values.some:
                nonzero.add(tensor.name)
        if self.header.tensors and finite and not any(partner(name) in nonzero for name in nonzero):
            yield "it changes nothing: every product of lora_A and lora_B is zero"

    def check_digest(self) -> Iterator[str]:
        if self.manifest and self.header and content_digest(self.directory) != self.manifest.adapter_sha256:
            yield "its files are not the ones that were published"

    def _is_plain(self, name: str) -> bool:
        # Anything else has its reason already, and may be a pipe, which would block the read for ever.
        return name in self.files and stat.S_ISREG(self.files[name].st_mode)

    def _json(self, name: str) -> Any:
        """The file's content, None if it is not a plain file; raises ValueError unless it is strict JSON."""
        if not self._is_plain(name):
            return None
        if self.files[name].st_size > MAX_JSON_BYTES:
            raise ValueError(f"{name} is larger than {MAX_JSON_BYTES} bytes")
        try:
            return strict_json((self.directory / name).read_bytes())
        except (ValueError, RecursionError) as exc:
            why = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)[:200]
            raise ValueError(f"{name} is not valid JSON ({why})") from exc


def strict_json(text: bytes) -> Any:
    """Raises ValueError also for NaN and for a duplicate key, which readers understand in different ways."""

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key comes twice")
        return found

    return json.loads(text, parse_constant=no_constant, object_pairs_hook=no_twins)


def unservable_features(config: dict[str, Any]) -> list[str]:
    """What a LoraConfig with these fields trains that vLLM cannot serve."""
    reasons = [f"vLLM cannot serve {what} ({key})" for key, what in REFUSED_FEATURES.items() if config.get(key)]
    if config.get("bias") not in (None, "none"):
        reasons.append(f"it trains biases (bias={_quoted(config['bias'])})")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        reasons.append(f"it changes the base model's weights (init_lora_weights={_quoted(init)})")
    return reasons


def _config_reasons(config: dict[str, Any], max_rank: int) -> list[str]:
    reasons = unservable_features(config)
    if config.get("peft_type") != "LORA":
        reasons.append(f"its type is {_quoted(config.get('peft_type'))}, not LORA")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        reasons.append(f"its task is {_quoted(config['task_type'])}, not CAUSAL_LM")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool):
        reasons.append(f"its rank is {_quoted(rank)}, expected a whole number")
    elif not 1 <= rank <= max_rank:
        option = f": `server --max-rank {rank}` serves it" if max_rank < rank <= MAX_RANK else ""
        reasons.append(f"its rank is {_quoted(rank)}, and the server takes 1 to {max_rank}{option}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= MAX_ALPHA:
        reasons.append(f"its lora_alpha is {_quoted(alpha)}, expected a number above 0, at most {MAX_ALPHA}")
    elif alpha == 0:
        reasons.append("it changes nothing: its lora_alpha is 0")
    targets = config.get("target_modules")
    if not (isinstance(targets, str) or (isinstance(targets, list) and all(isinstance(t, str) for t in targets))):
        reasons.append("its target_modules are not a list of names")
    return reasons


def _header_reasons(header: Header, rank: int | None, shape: dict[str, Any] | None, max_rank: int) -> Iterator[str]:
    """`rank` is that of every tensor, None if each has its own."""
    if not header.tensors:
        yield "it holds no tensors"
    for tensor in header.tensors:
        own = rank or tensor.rank or 1
        if tensor.dtype not in ("F32", "F16", "BF16"):
            yield f"tensor {tensor.name!r} is {tensor.dtype}, and vLLM wants F32, F16 or BF16"
        if rank is None and own > max_rank:
            yield f"tensor {tensor.name!r} has rank {own}, and the server takes 1 to {max_rank}"
        expected = expected_shape(tensor.name, own, shape) if shape else tensor.shape
        if expected is None:
            yield f"the base model has no place for tensor {tensor.name!r}"
            continue
        if tensor.shape != expected:
            yield f"tensor {tensor.name!r} has shape {tensor.shape}, the base model needs {expected}"
        other = partner(tensor.name)
        if other and other not in header.names:
            yield f"tensor {tensor.name!r} has no {'lora_B' if '.lora_B.' in other else 'lora_A'} beside it"


def _quoted(value: object) -> str:
    return repr(value)[:80]
