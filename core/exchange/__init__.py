"""Networks from and to other people's formats: Hugging Face folders both ways, ONNX outwards.

Each format is a file of its own, imported where it is wanted (``from unlabeled.core.exchange import huggingface``);
nothing is loaded on importing this package.
"""
