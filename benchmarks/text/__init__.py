"""The speed of tokenizers, Penstock's and others', on one core and up to padded tensors."""
