"""Compression: a trained LoRA, full fine-tune or adapter as a smaller tensor."""
