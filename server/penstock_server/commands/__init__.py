"""The subcommands of ``penstock``; what they need is loaded inside them, so that starting is quick."""
