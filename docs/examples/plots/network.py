"""What is trained, and how is it joined?

Factors as nodes, bonds as lines between them, modes as open legs. Filled: trained; hollow: starts at zero; green legs:
index modes, orange: rows, blue: columns.
"""

from transformers import BertConfig

import tensoradapt as ta

plan = ta.plan(BertConfig(), "tucker", "layer proj : head dim : model", rank=8)
ta.plots.network(plan)
