"""Networks in torch: run with gradients, and trained by distillation. Needs the extra equint[torch]."""
