"""The model repository: folders, manifests, versions."""
