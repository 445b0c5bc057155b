"""LoRA folders are exported exactly, and read as PEFT and others save them."""
