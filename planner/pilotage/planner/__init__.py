"""What should be done, and why."""

import os

# LangGraph reads it once, when it is first imported: without it, types that nobody declared would be revived from a file
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
