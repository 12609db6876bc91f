"""What a model and an adapter say by transformers and PEFT, in float32: what our servers are compared with."""

from pathlib import Path


def next_token(base: Path, adapter: Path | None, prompts: list[str]) -> list[dict[str, float]]:
    """The log probability of every token after each prompt, in the order of the vocabulary."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    with torch.no_grad():
        rows = [model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1] for prompt in prompts]
    return [dict(zip(names, torch.log_softmax(row, -1).tolist(), strict=True)) for row in rows]
