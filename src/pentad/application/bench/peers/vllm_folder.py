"""Runs in vLLM's environment, without Pentad: a GGUF file as a Hugging Face folder of the same weights.

vLLM reads no GGUF on CPUs. `python vllm_folder.py FILE.gguf FOLDER` writes them in bfloat16, once.
"""

import pathlib
import sys


def write_folder(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the weights and the tokenizer of a GGUF file, unless they are there."""
    if (folder / "model.safetensors").exists():
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype="bfloat16")
    # The weights were dequantized; left marked, they could not be saved.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
    model.save_pretrained(folder)


if __name__ == "__main__":
    write_folder(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
