import tensoradapt as ta

cp = {"method": "cp", "rank": [4, 64]}
lora = {"method": "lora", "rank": [1, 8]}
data = {"task": "snippets", "n_train": 2000, "n_test": 800}  # sentences of film reviews, rated by people
training = {"steps": 60, "lr": 2e-3, "seed": [0, 1, 2]}
spec = {"model": "all-minilm-l6-v2", "method": [cp, lora], "reference": "head", **data, **training}
ta.sweep(spec, "runs/first", workers=2)
runs = ta.results("runs/first")
ta.plots.frontier(runs, headline=True).figure.savefig("first.png")
