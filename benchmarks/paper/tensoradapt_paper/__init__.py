"""What the experiments of papers need beside tensoradapt: their tasks, and the models that they are run on."""
