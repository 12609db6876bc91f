"""The comparison page: a Gradio app of its own process that talks to the server over HTTP."""
