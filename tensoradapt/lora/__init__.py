"""LoRA folders: exact export, and reading what PEFT and others saved."""
