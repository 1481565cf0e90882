"""How a phantom is drawn: canvas -> anatomy -> chest -> lesions -> film."""
