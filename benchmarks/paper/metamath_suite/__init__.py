"""PEFT's comparison on MetaMathQA and GSM8K with tensors: its setting, its loop and its format of results."""
