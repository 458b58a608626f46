"""Chat: vision-language and language models behind one small interface.

Law of this room: a model answers a text, with pictures or without; what is asked and what an answer means is the
business of who asks. Keys come from the environment and are written nowhere; no remote code runs.

* `base`: what a chat model offers; questions and answers
* `options`: how a model is named (`hf:MODEL`, `openai:MODEL`) and set
* `hf`: models of transformers; `openai_api`: an OpenAI-compatible endpoint
* `pace`: so many requests a minute; `json_answers`: the strict reading of an answer in JSON
* `likelihood`: how likely a model finds a given answer
"""
