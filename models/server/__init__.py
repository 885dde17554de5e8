"""An OpenAI-compatible server over an engine; it needs the extra ``serve``."""
