"""Compression makes a smaller tensor of a trained LoRA, full fine-tune or adapter."""
