"""What a student writes: two methods over two layouts, compared with LoRA; prints facts that the test reads."""

import json

import tensoradapt as ta

if __name__ == "__main__":
    spec = {"model": "all-minilm-l6-v2", "task": "snippets", "n_train": 160, "n_validation": 64, "n_test": 64}
    layouts = [["layer : out : in"], ["layer proj : head dim : model"]]
    cp = {"method": "cp", "layout": layouts, "rank": [4, 8]}
    ta.sweep({**spec, "method": ["lora", cp], "rank": 1, "lr": 2e-3, "seed": [0, 1], "steps": 8, "batch": 8}, "runs")
    table = ta.results("runs")
    compared = ta.compare(table)
    ax = ta.plots.differences(table)
    ax.figure.savefig("differences.png")
    ta.plots.frontier(table, col="layout")
    print(json.dumps({"reference": sorted(set(compared.reference)), "rows": len(compared), "label": ax.get_xlabel()}))
