"""May vLLM serve this adapter on this base model? Every reason against it at once, before it costs anything.

vLLM copies a smaller adapter silently into its slots, never compares the base model, and leaves a broken adapter half
loaded; so all of that is settled here, from the files alone. The same function judges at publish, import, promote and
first load. It believes nothing that it reads: files may be hostile. This file knows neither store nor server.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from adapters.models.base_models import BaseModel, shaping_config
from adapters.models.tensors import (
    CODE,
    Header,
    expected_shape,
    header_of,
    largest_file,
    partner,
    values_of,
)
from adapters.store.manifest import Manifest
from adapters.store.store import digest_until_weights
from adapters.store.version import CARD, CONFIG, MANIFEST, WEIGHTS

MAX_RANK = 512
"""The largest that vLLM serves, and so the largest --max-rank."""
MAX_ALPHA = 1_000_000
"""JSON allows integers that no float holds; vLLM divides this one by the rank."""
MAX_JSON_BYTES = 2**20
"""A manifest or a configuration has a few thousand."""
MAX_WEIGHTS_BYTES = 4 * 2**30
"""Where no base model says how large an adapter can be."""

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
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""The others (PiSSA, OLoRA, CorDA, LoftQ) change the base model's own weights."""


def reasons_against(
    directory: Path, base: BaseModel | None, max_rank: int = MAX_RANK, published: bool = True
) -> list[str]:
    """Why vLLM may not serve the adapter in `directory` on `base`; empty if it may. Raises nothing.

    Without `base`: what speaks against it on any base model. `published`: the directory is a version of a store, with a
    manifest that says what it should be; otherwise it is what a training run or somebody else wrote, of which only
    configuration and weights count.
    """
    try:
        files = _files(directory)
    except OSError as exc:
        return [f"{directory.name} cannot be read ({exc.strerror})"]
    reasons = _file_reasons(files, published)
    try:
        manifest = _manifest(directory, files, reasons) if published else None
        if manifest and base and manifest.base_fingerprint != base.fingerprint:
            # Its tensors need not fit this base model: hundreds of reasons that all mean this one.
            reasons.append(_foreign(manifest, base))
            base = None
        config = _config(directory, files, reasons)
        if config is not None:
            reasons += _config_reasons(config, max_rank)
        digest = _judge_weights(
            directory, files, config, shaping_config(base.path) if base else None, max_rank, reasons
        )
    except OSError as exc:
        return [*reasons, f"{Path(str(exc.filename)).name} cannot be read ({exc.strerror})"]
    if manifest and digest and digest != manifest.adapter_sha256:
        reasons.append("its files are not the ones that were published")
    return reasons


def _files(directory: Path) -> dict[str, os.stat_result]:
    """What lies there, symbolic links not followed; raises NotADirectoryError for one in the directory's place."""
    if directory.is_symlink():
        raise NotADirectoryError(20, "it is a symbolic link", str(directory))
    return {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(directory)}


def _file_reasons(files: dict[str, os.stat_result], published: bool) -> list[str]:
    reasons = []
    wanted = {CONFIG, WEIGHTS, MANIFEST} if published else {CONFIG, WEIGHTS}
    known = wanted | {CARD} if published else wanted
    for name, found in sorted(files.items()):
        if name in known and stat.S_ISLNK(found.st_mode):
            reasons.append(f"{name} is a symbolic link")
        elif name in known and not stat.S_ISREG(found.st_mode):
            reasons.append(f"{name} is no plain file")
        elif published and name.endswith(CODE):
            reasons.append(f"{name[:80]!r} may run code when it is read: only safetensors are served")
        elif published and name not in known:
            reasons.append(f"{name[:80]!r} does not belong to a version")
    for name in sorted(wanted - files.keys()):
        instead = next((other for other in sorted(files) if name == WEIGHTS and other.endswith(CODE)), None)
        may_run_code = f", and {instead[:80]!r} may run code when it is read" if instead else ""
        reasons.append(f"{name} is missing{may_run_code}")
    return reasons


def _is_plain(files: dict[str, os.stat_result], name: str) -> bool:
    """Anything else has its reason already, and may be a pipe, where reading would wait for ever."""
    return name in files and stat.S_ISREG(files[name].st_mode)


def _json(directory: Path, name: str, files: dict[str, os.stat_result], reasons: list[str]) -> Any:
    """None, and a reason, if the file is not JSON as everybody reads it."""
    if not _is_plain(files, name):
        return None
    if files[name].st_size > MAX_JSON_BYTES:
        reasons.append(f"{name} is larger than {MAX_JSON_BYTES} bytes")
        return None
    try:
        return strict_json((directory / name).read_bytes())
    except (ValueError, RecursionError) as exc:
        why = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)[:200]
        reasons.append(f"{name} is no valid JSON ({why})")
        return None


def strict_json(text: bytes) -> Any:
    """Raises ValueError also for NaN and for a key that comes twice, which readers understand in different ways."""

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key comes twice")
        return found

    return json.loads(text, parse_constant=no_constant, object_pairs_hook=no_twins)


def _manifest(directory: Path, files: dict[str, os.stat_result], reasons: list[str]) -> Manifest | None:
    found = _json(directory, MANIFEST, files, reasons)
    if found is None:
        return None
    try:
        return Manifest.model_validate(found)
    except ValidationError as exc:
        wrong = ", ".join(sorted({".".join(map(str, error["loc"])) for error in exc.errors()}))
        reasons.append(f"{MANIFEST} is no manifest of a version ({wrong[:200] or 'no object'})")
        return None


def _foreign(manifest: Manifest, base: BaseModel) -> str:
    trained, served = manifest.base_fingerprint[:19], base.fingerprint[:19]
    return (
        f"it was trained on {manifest.base_name} ({trained}...), and this server serves {base.name} ({served}...): "
        f"serve it with `server --base {shlex.quote(manifest.base)}`"
    )


def _config(directory: Path, files: dict[str, os.stat_result], reasons: list[str]) -> dict[str, Any] | None:
    config = _json(directory, CONFIG, files, reasons)
    if config is None or isinstance(config, dict):
        return config
    reasons.append(f"{CONFIG} is no PEFT LoRA configuration")
    return None


def unservable_features(config: dict[str, Any]) -> list[str]:
    """What PEFT's LoraConfig of these fields trains that vLLM cannot serve."""
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
        reasons.append(f"its rank is {_quoted(rank)}, and should be a whole number")
    elif not 1 <= rank <= max_rank:
        option = f": `server --max-rank {rank}` serves it" if max_rank < rank <= MAX_RANK else ""
        reasons.append(f"its rank is {_quoted(rank)}, and the server takes 1 to {max_rank}{option}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= MAX_ALPHA:
        reasons.append(f"its lora_alpha is {_quoted(alpha)}, and should be a number above 0, at most {MAX_ALPHA}")
    elif alpha == 0:
        reasons.append("it changes nothing: its lora_alpha is 0")
    targets = config.get("target_modules")
    if not (isinstance(targets, str) or (isinstance(targets, list) and all(isinstance(t, str) for t in targets))):
        reasons.append("its target_modules are no list of names")
    return reasons


def _judge_weights(
    directory: Path,
    files: dict[str, os.stat_result],
    config: dict[str, Any] | None,
    shape: dict[str, Any] | None,
    max_rank: int,
    reasons: list[str],
) -> str | None:
    """Add what speaks against the weights; the digest of configuration and weights, None if there is nothing to read.

    `shape` is the base model's, see `base_model.shaping_config`.
    """
    if not (_is_plain(files, WEIGHTS) and _is_plain(files, CONFIG)) or files[CONFIG].st_size > MAX_JSON_BYTES:
        return None
    limit = largest_file(max_rank, shape) if shape else MAX_WEIGHTS_BYTES
    if files[WEIGHTS].st_size > limit:
        reasons.append(f"{WEIGHTS} has {files[WEIGHTS].st_size} bytes, and could need {limit} at most")
        return None
    try:
        header = header_of(directory / WEIGHTS)
    except ValueError as exc:
        reasons.append(f"{WEIGHTS} is damaged ({exc})")
        return None
    rank = config.get("r") if config and not config.get("rank_pattern") else None
    usual = isinstance(rank, int) and 1 <= rank <= MAX_RANK
    reasons += _header_reasons(header, rank if usual else None, shape, max_rank)
    digest = digest_until_weights(directory)
    digest.update(header.raw)
    reasons += _value_reasons(directory / WEIGHTS, header, digest.update)
    return digest.hexdigest()


def _header_reasons(header: Header, rank: int | None, shape: dict[str, Any] | None, max_rank: int) -> Iterator[str]:
    """`rank` is what every tensor has, None if each says its own."""
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


def _value_reasons(file: Path, header: Header, digested: Callable[[bytes], None]) -> list[str]:
    """Reads every tensor once, in the order of the file, and gives its bytes to `digested`."""
    reasons = []
    something: set[str] = set()
    for tensor, data in header.read(file):
        digested(data)
        values = values_of(tensor, data)
        if values is None:
            continue
        if not values.finite:
            reasons.append(f"tensor {tensor.name!r} holds NaN or infinity")
        if values.some:
            something.add(tensor.name)
    changes = any((other := partner(name)) and other in something for name in something)
    if header.tensors and not changes and not reasons:
        reasons.append("it changes nothing: every product of lora_A and lora_B is zero")
    return reasons


def _quoted(value: object) -> str:
    return repr(value)[:80]
