"""What the peers run: one graph and tokenizer behind each server, with what their environments have."""
