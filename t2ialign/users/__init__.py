"""Users: what a person likes, as a few vectors made from a few pairs that the person judged (PPD, arXiv 2501.06655).

Law of this room: an embedding is a function of its shots and its extractor alone, it names both, and zeros stand for
nobody. The room knows pairs and pictures, not diffusion models; `models.user_adapter` takes the vectors from here.

* `files`: what an embedding is, and its safetensors file
* `shots`: which pairs of a user make the embedding, and which are left to train on
* `extractors`: what an extractor is, and how one is named; `clip` and `vlm` are the two kinds
* `embed`: from a pair set to embeddings and files
* `mix`: several users added up by weights
"""
