"""Balance multi-modal training in PyTorch."""
