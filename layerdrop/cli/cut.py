"""Cut a checkpoint: drop layers and write an ordinary checkpoint of the same class, without training.

  layerdrop cut bert-base-uncased --drop_strategy top --drop_k 6 --output_dir bert-6
  layerdrop cut MODEL --drop_strategy block-influence --drop_k 4 --texts texts.txt --output_dir OUT

MODEL is any checkpoint of a supported family with any head: base model, masked LM, classifier of texts or tokens,
question answering, decoder, sentence encoder (its pooling and dense modules are kept). Use the result with your own
training script.

Criteria that read texts need --texts: a file of lines, or a .csv, .tsv, .json, .jsonl, .parquet or .conll file. If
a text is a list of words, or the file is CoNLL, the words are joined with blanks. Criteria that need a head use the
checkpoint's masked-LM head. A table of all criteria is in docs/criteria.md.

--trim_vocabulary FILE keeps only the tokens of the texts in FILE, special tokens, and tokens of one character or byte.
The trimmed tokenizer splits the texts of FILE into the same tokens as before. Trimming makes multilingual models much
smaller: in models of base size, the embeddings are larger than all layers together.
"""

import argparse
from pathlib import Path

from layerdrop.cli.command import CommandParser, flag_name, unknown_flags
from layerdrop.cli.run import describe_flags
from layerdrop.errors import UserError
from layerdrop.system.files import LocalPath

SHARED = (
    *("drop_strategy", "drop_k", "drop_threshold", "drop_layers", "remove_layers", "keep_layers", "drop_order_file"),
    *("drop_order", "weight_scope", "score_on", "score_store", "max_score_samples", "max_seq_length", "seed"),
    *("model_revision", "cache_dir", "token", "trust_remote_code", "use_cpu"),
)
"""Flags of a run that this command takes."""
HELP = {"max_score_samples": "Criteria that read texts: use only the first N texts of --texts."}
"""Flag of a run -> its help text in this command, where it has another meaning."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop cut`, and describe the flags of a run that it takes."""
    parser.usage = "layerdrop cut MODEL --output_dir FOLDER [--flag value ...]"
    _add_own_flags(parser)
    describe_flags(
        parser.add_argument_group("selection of layers, model and device, as in layerdrop run"), SHARED, HELP
    )


def _add_own_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=LocalPath, help="folder or hub name of a checkpoint")
    parser.add_argument("--output_dir", type=LocalPath, required=True, help="folder of the cut checkpoint")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="type of the weights (default: unchanged)")
    parser.add_argument("--texts", type=LocalPath, metavar="FILE", help="file of texts, for criteria that read texts")
    parser.add_argument("--text_columns", help="text columns of --texts and --trim_vocabulary, separated by a comma")
    parser.add_argument(
        "--skip_bad_rows", action="store_true", help="skip malformed rows of --texts and --trim_vocabulary"
    )
    parser.add_argument(
        "--trim_vocabulary",
        type=LocalPath,
        metavar="FILE",
        help="keep only the tokens of the texts in FILE, special tokens, and tokens of one character or byte",
    )
    parser.add_argument("--push_to_hub", metavar="NAME", help="also upload the result to this repository on the hub")


def main(parser: CommandParser, words: list[str]) -> int:
    """Select the layers, write the checkpoint, and print its size. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        parser.print_help()
        return 0
    if unknown := [word for word in unknown_flags(parser, words) if flag_name(word) not in SHARED]:
        raise parser.no_such_flag(unknown[0])
    own = CommandParser(parser.prog, allow_abbrev=False)
    _add_own_flags(own)
    args, rest = own.parse_known_args(words)
    from layerdrop.architectures import ModelSpec
    from layerdrop.checkpoints import Checkpoint, is_local, work_offline_unless_reachable
    from layerdrop.deploy.cut import Source, push, write_cut
    from layerdrop.deploy.folder import check_output
    from layerdrop.runs.results import LAYERS_FILE
    from layerdrop.system.distributed import log_notes
    from layerdrop.system.process import freeze_imports

    freeze_imports()
    arguments = _arguments(args, rest)
    if not is_local(args.model):
        work_offline_unless_reachable()
    check_output("--output_dir", args.output_dir, LAYERS_FILE)
    model = arguments.model
    source = Source(args.model, model.hub, model.model_revision)
    checkpoint = Checkpoint.open(ModelSpec(source.name, model.model_revision), model.hub, "MODEL")
    model.model_name_or_path = source.name
    spec, options = arguments.to_spec()
    selection = _selection(args, spec, options, checkpoint)
    log_notes(checkpoint.notes)
    columns = _texts(args, "--trim_vocabulary").texts if args.trim_vocabulary else ()
    trim_to = list(zip(*columns, strict=True))
    cut = write_cut(source, checkpoint, selection, spec.drop.strategy, args.output_dir, args.dtype, trim_to)
    before, after = cut.parameters
    print(
        f"{cut.folder}: {cut.model_class} with layers {', '.join(map(str, cut.kept))} of {cut.n_layers}; "
        f"{before:,} -> {after:,} parameters ({100 * (after - before) / before:+.1f}%)"
    )
    if args.trim_vocabulary:
        print(f"vocabulary: {cut.vocabulary[0]:,} -> {cut.vocabulary[1]:,} tokens")
    if args.push_to_hub:
        print(f"uploaded to {push(args.output_dir, args.push_to_hub, options.token)}")
    return 0


def _arguments(args: argparse.Namespace, words: list[str]):
    """The flags of a run that select layers. Raises UserError if nothing is to be removed."""
    from layerdrop.cli.parsing import parse

    if words and not words[0].startswith("--"):
        raise UserError(f"unexpected argument '{words[0]}'. See layerdrop cut --help.")
    words = ["--model_name_or_path", args.model, "--task_name", "demo-rte", "--do_eval", *words]
    arguments = parse(words, "layerdrop cut")
    if arguments.strategy is None and not args.trim_vocabulary and not args.dtype:
        also = "To keep all layers, add --trim_vocabulary or --dtype."
        raise UserError(f"no layer to drop. Add --drop_strategy and --drop_k, --drop_layers, or --keep_layers. {also}")
    drop, row = arguments.drop, arguments.strategy
    if row and row.searched and not (drop.drop_order_file or drop.drop_order):
        raise UserError(f"--drop_strategy {row.name}: needs the result of a search. Add --drop_order_file FILE.")
    return arguments


def _selection(args: argparse.Namespace, spec, options, checkpoint):
    """Select the layers to drop. Raises UserError if a criterion needs texts and there are none."""
    import torch

    from layerdrop.criteria.selection import select_layers, split_to_score
    from layerdrop.data.tasks import custom_task

    examples, task = None, None
    if args.texts and not split_to_score(spec.drop):
        chosen = f"--drop_strategy {spec.drop.strategy}" if spec.drop.strategy else "a command that drops no layer"
        raise UserError(
            f"--texts {args.texts}: {chosen} reads no texts. Leave --texts out, or use --trim_vocabulary FILE to "
            "trim the vocabulary."
        )
    if split_to_score(spec.drop):
        if not args.texts:
            raise UserError(f"--drop_strategy {spec.drop.strategy}: reads texts. Add --texts FILE.")
        examples = _texts(args, "--texts")
        task = custom_task("texts", tuple(f"text{i}" for i in range(len(examples.texts))), "label", ())
    return select_layers(
        spec.drop,
        checkpoint,
        examples,
        task,
        seed=spec.seed,
        max_seq_length=spec.data.max_seq_length,
        device=torch.device("cuda" if torch.cuda.is_available() and not options.use_cpu else "cpu"),
        batch_size=32,
        score_store=options.score_store,
    )


def _texts(args: argparse.Namespace, flag: str):
    """Read the file of --texts or --trim_vocabulary. Raises UserError."""
    from layerdrop.data.readers import read_table
    from layerdrop.data.to_predict import is_table, read_columns, read_lines
    from layerdrop.system.text import names_in

    path = getattr(args, flag.removeprefix("--"))
    if is_table(path):
        chosen = names_in(args.text_columns)
        return read_columns(read_table(flag, path, args.skip_bad_rows), (), chosen, args.skip_bad_rows).examples(())
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot read the file ({error.strerror}). Check the path.") from None
    return read_lines(content, path, args.skip_bad_rows).examples(())
