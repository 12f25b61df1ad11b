"""What same_bits.py gives every checkout, made from fixed seeds: toy competitions and runs, tiny models, predictions.

A change here changes the hashes: make the older side's anew as well.
"""

from pathlib import Path

import numpy as np
import yaml

MOODS = {"joy": "happy glad joyful", "sadness": "sad gloomy tearful", "anger": "angry furious mad"}
FILLERS = "the a is was today it plain dull calm yes no none and of this text label mood feels".split()  # noqa: SIM905
WORDS = [*" ".join(MOODS.values()).split(), *MOODS, *FILLERS]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
N_TRAIN, N_TEST = 160, 24

# Toy runs by competition; the first word of a name is the learner. {bert} and so on are the folders of tiny models.
RUNS = {
    "toy": {
        "tfidf-plain": "{}",
        "tfidf-words": "tfidf: {char_ngrams: [0, 0], min_rows: 1}\nlogistic: {balanced: false}",
        "nbsvm-plain": "{}",
        "nbsvm-smooth": "nbsvm: {smoothing: 0.3}\nlogistic: {inverse_regularization: 4.0}",
        "embeddings-bert": "embeddings: {name: {bert}}",
        "embeddings-modernbert": "embeddings: {name: {modernbert}, max_length_tokens: 8}",
        "encoder-names": "model: {name: {bert}, pooling: label_attention, head_start: label_names}\n"
        "adversarial: {name: fgm, epsilon: 0.5}\ntraining: {precision: bf16}",
        "encoder-focal": "model: {name: {bert}, pooling: attention, dropout_samples: 3}\n"
        "loss: {name: focal, focal_gamma: 1.5, pos_weight_power: 0.5, label_smoothing: 0.05}\n"
        "training: {ema_decay: 0.9, selection: best_score, evaluations_per_epoch: 2}",
        "encoder-asymmetric": "model: {name: {bert}, pooling: cls, head: mlp}\nloss: {name: asymmetric}\n"
        "adversarial: {name: awp, epsilon: 0.01, awp_lr: 0.01, start_epoch: 2}\n"
        "training: {selection: loss_and_score, near_lowest_loss: 0.05}",
        "encoder-rdrop": "model: {name: {bert}}\nloss: {r_drop_alpha: 0.5}\n"
        "augmentation: {oversample_factor: 1.0, oversample_k_rarest: 1}\ntraining: {selection: average_last}\n"
        "optimizer: {layer_decay: 0.8, schedule: cosine}",
        "encoder-balanced": "model: {name: {bert}, pooling: concat_last, concat_layers: 2, concat_states: mean}\n"
        "loss: {name: distribution_balanced}\naugmentation: {mix_probability: 0.3, token_dropout: 0.1}\n"
        "training: {micro_batch_size: 3}\noptimizer: {schedule: constant, warmup_fraction: 0.0, warmup_steps: 3}",
        "encoder-soft": "model: {name: {bert}, max_length_tokens: 9, tail_share: 0.3}\nloss: {soft_targets: soft.csv}\n"
        "cleaning: {urls: true, users: true, hashtags: true, placeholder_tokens: true}\n"
        "training: {selection: lowest_loss}\noptimizer: {embedding_rows: touched}",
        "encoder-f1": "model: {name: {modernbert}, pooling: max}\nloss: {name: soft_macro_f1}\n"
        "training: {gradient_checkpointing: true}",
        "encoder-zlpr": "model: {name: {deberta-v2}}\nloss: {name: zlpr}",
        "decoder-lora": "model: {name: {qwen2}, pooling: last}\nadapter: {rank: 4}\n"
        "prompt: {template: 'Text: {text}\\nLabels:'}",
        "decoder-dora": "model: {name: {llama}, pooling: label_attention}\n"
        "adapter: {rank: 4, dora: true, rslora: true, bias: lora_only}\nloss: {name: focal}",
        "decoder-pissa": "model: {name: {qwen2}}\nadapter: {rank: 4, start: pissa, targets: [q_proj, v_proj]}\n"
        "training: {micro_batch_size: 4, gradient_checkpointing: true}",
        "decoder-nf4": "model: {name: {llama}}\nadapter: {rank: 4, quantization: nf4}",
        "decoder-prefix": "model: {name: {qwen2}}\nadapter: {kind: prefix_tuning, virtual_tokens: 4}\n"
        "prompt: {form: chat, system: 'One of {labels}.'}",
        "generator-list": "model: {name: {qwen2}}\nadapter: {rank: 8}\nprompt: {form: chat, template: 'Text: {text}'}",
        "generator-yes": "model: {name: {llama}}\nadapter: {rank: 8}\nprompt: {template: 'Text: {text}\\n'}\n"
        "answer: {form: yes_no}\nloss: {name: focal}",
    },
    "one": {  # one label per row
        "tfidf-class": "{}",
        "encoder-class": "model: {name: {bert}, pooling: mean}\nloss: {label_smoothing: 0.1}",
        "decoder-class": "model: {name: {llama}}\nadapter: {kind: none}\noptimizer: {lr: 1.0e-3}",
        "generator-class": "model: {name: {llama}}\nadapter: {rank: 8}\nprompt: {form: chat}",
    },
}
TASKS = {"toy": "multilabel", "one": "multiclass"}
# name: (task, metric, submission form, rows, labels, folds, runs)
BLENDS = {
    "macro-f1": ("multilabel", "macro_f1", "columns", 600, 6, 5, 5),
    "macro-f1-few": ("multilabel", "macro_f1", "delimited", 150, 3, 3, 2),
    "micro-f1": ("multilabel", "micro_f1", "delimited", 400, 5, 4, 3),
    "samples-f1": ("multilabel", "samples_f1", "columns", 300, 5, 5, 3),
    "jaccard": ("multilabel", "jaccard", "columns", 250, 4, 5, 3),
    "subset-accuracy": ("multilabel", "subset_accuracy", "columns", 300, 4, 5, 3),
    "macro-auc": ("multilabel", "macro_auc", "probabilities", 400, 4, 5, 4),
    "macro-ap": ("multilabel", "macro_ap", "probabilities", 350, 4, 4, 3),
    "log-loss": ("multilabel", "log_loss", "probabilities", 300, 4, 5, 3),
    "accuracy": ("multiclass", "accuracy", "class", 400, 5, 5, 3),
    "weighted-f1": ("multiclass", "weighted_f1", "class", 500, 4, 5, 4),
    "class-log-loss": ("multiclass", "log_loss", "probabilities", 300, 3, 5, 3),
}


def write_toy(root: Path, name: str, task: str) -> None:
    """A competition of three moods whose texts say their labels, some with a link or a name in them."""
    rng = np.random.default_rng(0)
    n_rows = N_TRAIN + N_TEST
    labels = rng.random((n_rows, 3)) < (0.45, 0.35, 0.2)
    if task == "multiclass":
        labels = np.eye(3, dtype=bool)[rng.integers(0, 3, n_rows)]
    texts = [write_text(row, rng) for row in labels]
    write_competition(root, name, texts, labels, list(MOODS), f"task: {task}\nn_folds: 2\nnear_duplicates: 1.0\n")
    soft = np.clip(labels[:N_TRAIN] * 0.8 + rng.random((N_TRAIN, 3)) * 0.2, 0, 1)
    write_table(root / "data" / name / "soft.csv", MOODS, np.round(soft, 3).tolist())


def write_text(row: np.ndarray, rng: np.random.Generator) -> str:
    said = [mood.split()[rng.integers(0, 3)] for mood, has in zip(MOODS.values(), row) if has]
    others = rng.choice([*FILLERS, "http://a.bc/d", "@name", "#dull"], rng.integers(3, 9))
    return " ".join(rng.permutation([*said, *others]))


def write_competition(root: Path, name: str, texts, labels: np.ndarray, names: list[str], settings: str) -> None:
    """Files and YAML: the first rows teach, the last N_TEST are the test rows."""
    data, n_train = root / "data" / name, len(texts) - N_TEST
    data.mkdir(parents=True)
    rows = [[text, *row] for text, row in zip(texts, labels.astype(int).tolist())]
    write_table(data / "train.csv", ["text", *names], rows[:n_train])
    write_table(data / "test.csv", ["text"], [[text] for text in texts[n_train:]], n_train)
    answer = next((form for form in ("delimited", "class") if f"form: {form}" in settings), "")
    columns = ["answer"] if answer else names
    filler = [names[0]] if answer else [0] * len(names)
    write_table(data / "sample_submission.csv", columns, [filler] * N_TEST, n_train)
    (root / "configs" / "competitions" / f"{name}.yaml").write_text(f"id_column: id\n{settings}")


def write_table(path: Path, columns, rows: list[list], first: int = 0) -> None:
    """A CSV with an id column, row by row; its ids go on from `first`."""
    lines = [",".join(["id", *columns])]
    lines += [",".join([f"r{number}", *map(str, row)]) for number, row in enumerate(rows, first)]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_run(root: Path, name: str, text: str, models: dict[str, Path]) -> None:
    """A run's YAML: what all neural toy runs have in common, then its own."""
    for model, folder in models.items():
        text = text.replace(f"{{{model}}}", str(folder))
    run = {"learner": name.split("-")[0], **yaml.safe_load(text)}
    if "model" in run:
        run["training"] = {"epochs": 3, "global_batch_size": 8, "precision": "fp32", **run.get("training", {})}
        rates = {"lr": 5e-3} if run["learner"] == "generator" else {"lr": 5e-3, "head_lr": 1e-2}
        run["optimizer"] = {**rates, **run.get("optimizer", {})}
    (root / "configs" / "runs" / f"{name}.yaml").write_text(yaml.safe_dump(run))


def write_blend(root: Path, name: str, task: str, metric: str, form: str, n_train: int, n_labels: int,
                n_folds: int, n_runs: int) -> None:  # fmt: skip
    """A competition of made-up rows and the predictions of some runs, each blind in its own way."""
    rng = np.random.default_rng(list(BLENDS).index(name))
    n_rows = n_train + N_TEST
    hidden = rng.normal(size=(n_rows, n_labels)) * 2 - np.linspace(0.5, 2.5, n_labels)
    labels = rng.random(hidden.shape) < 1 / (1 + np.exp(-hidden))
    if task == "multiclass":
        labels = np.eye(n_labels, dtype=bool)[(hidden + rng.gumbel(size=hidden.shape)).argmax(axis=1)]
    names = [f"label{k}" for k in range(n_labels)]
    texts = [f"{' '.join(rng.choice(WORDS, 6))} {row}" for row in range(n_rows)]
    settings = f"task: {task}\nmetric: {metric}\nn_folds: {n_folds}\nlabels: {{names: [{', '.join(names)}]}}\n"
    column = ", column: answer" if form in ("delimited", "class") else ""
    write_competition(root, name, texts, labels, names, f"{settings}submission: {{form: {form}{column}}}\n")
    for run in range(n_runs):
        logits = hidden + rng.normal(size=hidden.shape) * (0.8 + 0.4 * run) + rng.normal(size=n_labels) * 0.5
        probs = np.round(1 / (1 + np.exp(-logits)), 5).tolist()
        folder = root / "oof" / name / f"run{run}"
        folder.mkdir(parents=True)
        write_table(folder / "oof.csv", names, probs[:n_train])
        write_table(folder / "test.csv", names, probs[n_train:], n_train)


def save_models(folder: Path) -> dict[str, Path]:
    """Tiny random models of real config classes with their tokenizers, saved as the hub holds them."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    causal = {**sizes, "num_key_value_heads": 1, "max_position_embeddings": 256, "initializer_range": 0.2}
    encoder = {**sizes, "max_position_embeddings": 64}
    kinds = {"bert": encoder, "deberta-v2": encoder, "modernbert": {**encoder, "local_attention": 8}}
    kinds |= {"qwen2": causal, "llama": {**causal, "hidden_size": 64}}
    for kind, own in kinds.items():
        is_causal = "num_key_value_heads" in own
        tokenizer = make_chat_tokenizer() if is_causal else make_word_tokenizer()
        tokenizer.save_pretrained(folder / kind)
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        ids |= {} if is_causal else {"cls_token_id": 2, "sep_token_id": 3}
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **own, **ids)
        (AutoModelForCausalLM if is_causal else AutoModel).from_config(config).save_pretrained(folder / kind)
    return {kind: folder / kind for kind in kinds}


def make_word_tokenizer():
    """BERT's word pieces: whole words, else letters."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789#@:/.,<>"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *dict.fromkeys([*WORDS, *letters]), *(f"##{letter}" for letter in letters)]
    made = BertWordPieceTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    names = {f"{name.strip('[]').lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **names)


def make_chat_tokenizer():
    """Byte-level pieces with a chat template, as decoders have them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "extra_special_tokens": special[1:2]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **names)
    tokenizer.chat_template = CHAT
    return tokenizer
