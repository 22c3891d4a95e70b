"""The self-supervised engine: tokens, one encoder, masks, pretext tasks, one training loop.

It knows nothing of X-rays, bearings or cards. Import what you need from the submodules; nothing heavy but
PyTorch is loaded on import.
"""
