"""LlamaIndex, which takes an older SDK of OpenAI than the other frameworks (`make frameworks`)."""
