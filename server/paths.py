"""The paths on which answers are written: OpenAI's three, and Anthropic's."""

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
