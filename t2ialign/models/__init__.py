"""Models: loading a pipeline of any family, its LoRA, its frozen reference, and what is written of it to disk.

Law: this room knows families and files, not algorithms. Whoever trains or draws gets one `DiffusionModel` and asks
it to encode, noise and predict; nothing above this room looks at the class of a pipeline.

* `loading`: `load_model`, from a name to a `DiffusionModel` (`problems`: why not); `diffusion`: that class;
  `conditioning`: what it takes
* `families`: which family a pipeline is of; `schedules`: the training noise schedule behind any sampler
* `lora`, `user_adapter`, `reference`: adapters, and the model without them
* `attention`, `memory`: how the forward pass is computed
* `record`, `saving`, `card`: what a run leaves; `export` (names in `ldm_names`), `hub`: other programs, publishing

Nothing is imported here, so that a command that only needs `record` does not pay for PyTorch.
"""
