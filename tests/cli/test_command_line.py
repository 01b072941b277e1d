"""What a command line promises: text becomes typed fields, and a mistake is one clear message."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pix2pix.cli.command_line import main, parse, parse_all
from pix2pix.cli.help import help_text
from pix2pix.cli.options import option
from pix2pix.errors import UserError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Options:
    photos: Path = option(help="folder of photographs", metavar="DIR", group="input")
    seed: int = option(0, help="seed of all that is random")
    out: Path | None = option(None, help="where the result goes", group="output")
    name: str = option("run", help="what it is called")
    side: int | None = option(None, help="side of a picture", unit="pixels")
    rate: float = option(2e-4, help="step size")
    dropout: bool = option(True, help="drop units")
    norm: Literal["batch", "instance"] = option("batch", help="normalization")
    precision: Literal["no", "bf16"] | None = option(None, help="number format")
    splits: tuple[str, ...] = option(("train", "val"), help="which splits")
    sides: tuple[int, ...] = option((), help="which sides")
    codec: str = option("jpeg", help="file format", choices=("jpeg", "png"))


@dataclass(frozen=True)
class Status:
    run_dir: Path | None = option(None, help="folder of a run", metavar="RUN_DIR", positional=True)
    watch: bool = option(False, help="keep looking")


def parsed(*arguments: str) -> Options:
    return parse(Options, ["--photos", "photos", *arguments])


def message(*arguments: str, options: type = Options) -> str:
    with pytest.raises(UserError) as caught:
        parse(options, arguments)
    return str(caught.value)


# Fire on its own would: turn 1_000, n1,n2, 7, [1] and None into numbers, tuples, lists; read
# `--norm` as rm=False; end the arguments at a lone dash; open a prompt for `-- --interactive`.
@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--seed", "1_000"], "seed", 1000),
        (["--seed=-5"], "seed", -5),
        (["--seed", "-5"], "seed", -5),
        (["--out=1_000"], "out", Path("1_000")),
        (["--out", "7"], "out", Path("7")),
        (["--out", "a folder/of mine"], "out", Path("a folder/of mine")),
        (["--out=-old"], "out", Path("-old")),
        (["--out", "-"], "out", Path("-")),
        (["--out=a=b"], "out", Path("a=b")),
        (["--out=~/x"], "out", Path.home() / "x"),
        (["--out", "none"], "out", None),
        (["--name", "None"], "name", "None"),
        (["--name=[1]"], "name", "[1]"),
        (["--name", "n1,n2"], "name", "n1,n2"),
        (["--name='quoted'"], "name", "'quoted'"),
        (["--name", "True"], "name", "True"),
        (["--rate", "2e-4"], "rate", 2e-4),
        (["--rate", "1"], "rate", 1.0),
        (["--side", "none"], "side", None),
        (["--side", "64"], "side", 64),
        (["--dropout"], "dropout", True),
        (["--nodropout"], "dropout", False),
        (["--no-dropout"], "dropout", False),
        (["--dropout", "No"], "dropout", False),
        (["--dropout=0"], "dropout", False),
        (["--nodropout", "--seed", "1"], "dropout", False),
        (["--norm", "instance"], "norm", "instance"),
        (["--precision", "no"], "precision", "no"),
        (["--precision", "none"], "precision", None),
        (["--splits", "n1,n2"], "splits", ("n1", "n2")),
        (["--splits=val"], "splits", ("val",)),
        (["--sides", "64, 128"], "sides", (64, 128)),
        (["--codec", "png"], "codec", "png"),
    ],
)
def test_value_arrives_as_text_and_is_parsed_by_its_field(arguments, field, value):
    found = getattr(parsed(*arguments), field)
    assert found == value
    assert type(found) is type(value)


def test_dash_and_underscore_name_the_same_flag():
    @dataclass(frozen=True)
    class Run:
        run_dir: Path = option(help="folder")

    assert (
        parse(Run, ["--run-dir", "a-b"])
        == parse(Run, ["--run_dir=a-b"])
        == Run(run_dir=Path("a-b"))
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeed", "1"], "unknown flag --seeed; did you mean --seed?"),
        (["--drop-out"], "unknown flag --drop_out; did you mean --dropout?"),
        (["--seed", "1", "--nonsense"], "unknown flag --nonsense"),
        (["--normal"], "unknown flag --normal; did you mean --norm?"),
        (["--zzzz", "1"], "unknown flag --zzzz; --help lists every flag"),
        (["--seed", "ten"], "--seed expects a whole number such as 1000, not 'ten'"),
        (["--seed", "1.5"], "--seed expects a whole number"),
        (["--rate", "nan"], "--rate expects a number such as 0.5 or 2e-4, not 'nan'"),
        (["--dropout", "maybe"], "--dropout expects true or false, not 'maybe'"),
        (["--norm", "Batch"], "--norm expects batch or instance, not 'Batch'; did you mean batch?"),
        (["--norm"], "--norm needs a value: batch or instance"),
        (["--norm", "--seed", "1"], "--norm needs a value"),
        (["--side", "x"], "--side expects a whole number such as 1000, or none, not 'x'"),
        (["--codec", "gif"], "--codec expects jpeg or png, not 'gif'"),
        (["--sides", "64,x"], "--sides expects a whole number"),
        (["--splits", "train,,val"], "--splits needs a value"),
        (["--out", "-old"], "write --out=VALUE if it begins with a dash"),
        (["--out="], "--out needs a value"),
        (["--out", ""], "--out needs a value"),
        (["--config"], "--config needs a value"),
        (["--seed", "1", "--seed=2"], "--seed is given 2 times"),
        (["--dropout", "--nodropout"], "--dropout is given 2 times"),
        (["stray"], "unexpected argument 'stray'; flags are written --name value"),
        (["--seed", "1", "2"], "unexpected argument '2'"),
        (["-"], "unexpected argument '-'"),
        (["--", "--interactive"], "unexpected argument '--'"),
        (["--=3"], "unexpected argument '--=3'"),
    ],
)
def test_mistake_is_an_error_that_says_what_to_do(arguments, words):
    assert words in message("--photos", "photos", *arguments)


def test_missing_flags_are_named_all_at_once():
    @dataclass(frozen=True)
    class Two:
        shards: Path = option(help="folder", metavar="DIR")
        steps: int = option(help="length")

    assert "missing --shards DIR and --steps N" in message(options=Two)


def test_positional_field_takes_one_argument_or_its_flag():
    assert parse(Status, ["a run"]) == parse(Status, ["--run_dir", "a run"])
    assert parse(Status, ["runs/1", "--watch"]) == Status(run_dir=Path("runs/1"), watch=True)
    assert parse(Status, []) == Status()
    assert "unexpected argument 'b'" in message("a", "b", options=Status)
    assert "unexpected argument 'b'" in message("--run_dir", "a", "b", options=Status)


def test_positional_fields_take_arguments_in_their_order():
    @dataclass(frozen=True)
    class Copy:
        source: str = option(help="from", metavar="FROM", positional=True)
        target: str = option(help="to", metavar="TO", positional=True)

    assert parse(Copy, ["a", "b"]) == Copy(source="a", target="b")
    assert parse(Copy, ["b", "--source", "a"]) == Copy(source="a", target="b")
    assert "missing --target TO" in message("a", options=Copy)
    assert "unexpected argument 'c'" in message("a", "b", "c", options=Copy)
    assert "usage: copy FROM TO [flags]" in help_text(Copy, program="copy")


def test_file_is_read_as_flags_are_and_flags_win(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "# of ours\nprecision: no\nrate: 2e-4\nseed: 1_000\nout: 010\n"
        "splits: [a, b]\nsides: 1,2\nside: none\n"
    )
    options = parsed("--config", str(file), "--seed", "3")
    assert options == parsed(
        *["--precision", "no", "--rate=2e-4", "--out", "010", "--splits", "a,b"],
        *["--sides", "1,2", "--seed", "3"],
    )


def test_file_of_comments_changes_nothing(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("# nothing yet\n")
    assert parsed("--config", str(file)) == parsed()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseeed: 2\n", "recipe.yaml:2: unknown setting seeed; did you mean seed?"),
        ("seed: ten\n", "recipe.yaml:1: seed expects a whole number such as 1000, not 'ten'"),
        ("seed:\n", "recipe.yaml:1: seed needs a value"),
        ("seed: [1, 2]\n", "recipe.yaml:1: seed takes one value, not a list"),
        ("splits: [[a]]\n", "recipe.yaml:1: splits takes a value"),
        ("seed:\n  nested: 1\n", "recipe.yaml:1: seed takes a value, not a mapping"),
        ("seed: 1\nseed: 2\n", "recipe.yaml:2: seed is given twice"),
        ("config: other.yaml\n", "unknown setting config"),
        ("- seed\n", "must hold `name: value` lines"),
        ("seed", "must hold `name: value` lines"),
        ("a: [1\nb: 2\n", "is not YAML"),
    ],
)
def test_mistake_in_a_file_names_file_and_line(tmp_path, text, words):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert words in message("--photos", "p", "--config", str(file))


def test_unreadable_file_is_named(tmp_path):
    assert "absent.yaml cannot be read: No such file" in message("--config", "absent.yaml")
    assert "cannot be read: Is a directory" in message("--config", str(tmp_path))
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert "is not YAML" in message("--config", str(tmp_path / "photo.jpg"))


def test_field_of_a_type_that_no_flag_has_is_our_bug():
    @dataclass(frozen=True)
    class Bad:
        table: dict[str, int] = option(help="impossible")

    with pytest.raises(TypeError, match="table"):
        parse(Bad, [])


def test_help_names_every_flag_with_unit_choices_and_default_in_80_columns():
    text = help_text(
        Options, program="python x.py", intro="Does it.\n\n    python x.py  # verbatim"
    )
    assert text.startswith(
        "usage: python x.py --photos DIR [flags]\n\nDoes it.\n\n    python x.py  #"
    )
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for words in [
        "input --photos DIR folder of photographs (required) --seed N seed of all that is random "
        "(default 0) output --out PATH where the result goes (default none)",
        "--side PIXELS side of a picture (default none)",
        "--rate X step size (default 0.0002)",
        "--dropout true|false drop units (default true)",
        "--norm batch|instance normalization (default batch)",
        "--splits TEXT,… which splits (default train,val)",
        "--config FILE",
        "--help",
    ]:
        assert words in flat
    assert "[RUN_DIR]" in help_text(Status, program="x")


def run_main(*arguments, **keywords) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(*arguments, **keywords)
    return caught.value.code


def fail(options: object) -> None:
    """Fails, to show how."""
    raise UserError("the folder is empty; " + "put photographs there " * 5)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)


def test_main_passes_options_on_and_exits_with_the_status(capsys):
    assert run_main(lambda options: print(options.seed), Options, ["--photos=p", "--seed=4"]) == 0
    assert capsys.readouterr().out == "4\n"
    assert run_main(lambda options: 3, Options, ["--photos=p"]) == 3


def test_user_error_is_printed_once_by_rank_0_and_fails_every_rank(capsys, monkeypatch):
    assert run_main(fail, Status, []) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the folder is empty; put photographs there")
    assert max(map(len, error.splitlines())) <= 80
    monkeypatch.setenv("RANK", "0")
    assert run_main(fail, Status, []) == 2
    assert capsys.readouterr().err == error
    monkeypatch.setenv("RANK", "1")
    assert run_main(fail, Status, []) == 2
    assert capsys.readouterr().err == ""


def test_path_in_a_message_is_never_cut(capsys):
    path = "/data/" + "long-folder-name/" * 8

    def lose(options):
        raise UserError(f"no manifest in {path}; is it a folder of shards?")

    assert run_main(lose, Status, []) == 2
    assert path in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    def divide(options):
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        main(divide, Status, [])

    def lose_a_worker(options):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        main(lose_a_worker, Status, [])


def test_interrupt_is_quiet(capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    assert run_main(interrupted, Status, []) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--seeed", "x", "--help"]])
def test_help_anywhere_prints_and_runs_nothing(capsys, arguments):
    assert run_main(fail, Options, arguments) == 0
    assert "Fails, to show how.\n\ninput\n" in capsys.readouterr().out


def test_subcommands_have_their_own_options_and_help(capsys):
    def show(options):
        """Shows a run.

        And more.
        """
        print(options.run_dir)

    commands = {"show": (show, Status), "fail": (fail, Options)}
    assert run_main(commands, argv=["show", "runs/1"]) == 0
    assert capsys.readouterr().out == "runs/1\n"
    assert run_main(commands, argv=["--help"]) == 0
    overview = capsys.readouterr().out
    assert "Shows a run.\n" in overview
    assert "And more" not in overview
    assert "Fails, to show how." in overview
    assert run_main(commands, argv=["show", "--help"]) == 0
    assert "show [RUN_DIR] [flags]\n\nShows a run.\n\nAnd more." in capsys.readouterr().out
    for arguments, words in [([], "a command is missing."), (["sohw"], "did you mean show?")]:
        assert run_main(commands, argv=arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "\n  fail                          Fails, to show how.\n" in error


PROGRAM = """
import sys
from pix2pix.cli.command_line import main
from pix2pix.config import TrainConfig
def show(config):
    print(config.seed)
    print(*sorted({"torch", "numpy", "yaml"} & set(sys.modules)))
    print("x" * (config.total_steps or 0))
main(show, TrainConfig)
"""


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, "--shards=s", "--run_dir=r", *arguments]


def test_process_is_light_and_reports_status_without_traceback():
    run = subprocess.run(
        program("--seed", "5"), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("5\n\n")  # and neither torch, numpy nor yaml
    run = subprocess.run(
        program("--seed", "x"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "error: --seed expects a whole number such as 1000, not 'x'\n"


@pytest.mark.parametrize("num_letters", [1, 1_000_000])  # broken at the last flush, or in print
def test_reader_that_leaves_early_hears_no_complaint(num_letters):
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        program(f"--total_steps={num_letters}"),
        cwd=ROOT,
        env={name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (run.returncode, run.stderr) == (141, b"")


@dataclass(frozen=True)
class Place:
    machine: str = option("here", help="where it runs", group="place")
    cores: int = option(1, help="how many cores")
    room: str | None = option(None, help="entry of rooms.yaml with more of these")

    @staticmethod
    def preset_of(texts):
        return (Path(texts["rooms"]), texts["room"]) if "room" in texts else None


def test_several_classes_share_one_command_line():
    place, options = parse_all((Place, Options), ["--cores", "4", "--photos", "p", "--seed=3"])
    assert (place.cores, options.seed, options.photos) == (4, 3, Path("p"))
    with pytest.raises(UserError, match="unknown flag --coers; did you mean --cores"):
        parse_all((Place, Options), ["--photos", "p", "--coers", "4"])
    text = help_text(Place, Options, program="prog")
    assert text.index("\nplace\n") < text.index("--cores") < text.index("\ninput\n")


def test_two_classes_with_the_same_flag_are_a_bug_of_ours():
    with pytest.raises(TypeError, match="two options classes have a field photos"):
        parse_all((Options, Options), ["--photos", "p"])


@dataclass(frozen=True)
class Furnished(Place):
    rooms: Path = option(Path("rooms.yaml"), help="file of presets")


def furnished(tmp_path, *arguments):
    file = tmp_path / "rooms.yaml"
    file.write_text("small:\n  cores: 2\n  machine: desk\nodd:\n  coers: 2\n")
    return parse_all((Furnished,), ["--rooms", str(file), *arguments])[0]


def test_a_preset_holds_flags_and_a_flag_wins(tmp_path):
    assert furnished(tmp_path).cores == 1
    small = furnished(tmp_path, "--room", "small", "--machine", "bench")
    assert (small.cores, small.machine) == (2, "bench")


def test_a_preset_is_checked_like_a_flag(tmp_path):
    with pytest.raises(UserError, match=r"has no smal; did you mean small\?"):
        furnished(tmp_path, "--room", "smal")
    with pytest.raises(UserError, match=r"rooms.yaml:5: unknown setting coers; did you mean cores"):
        furnished(tmp_path, "--room", "odd")


@dataclass(frozen=True)
class Lists:
    """Flags of more than one value."""

    photos: tuple[Path, ...] = option(help="files and folders", metavar="PATH", many="words")
    grid: tuple[str, ...] = option((), help="points of a sweep", many="words")
    sbatch: tuple[str, ...] = option((), help="more lines", metavar="LINE", many="repeats")
    sizes: tuple[int, ...] | None = option(None, help="sizes", many="words")
    seed: int = option(0, help="a number")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--photos", "a.jpg", "b,c.jpg"], {"photos": (Path("a.jpg"), Path("b,c.jpg"))}),
        (["--photos", "a", "b", "--seed", "3"], {"photos": (Path("a"), Path("b")), "seed": 3}),
        (["--photos=a", "b"], {"photos": (Path("a"), Path("b"))}),
        (["--photos", "a", "--grid", "l1=1,2", "seed=0"], {"grid": ("l1=1,2", "seed=0")}),
        (
            ["--photos", "a", "--sbatch", "mail-type=END,FAIL", "--sbatch=--x=1"],
            {"sbatch": ("mail-type=END,FAIL", "--x=1")},
        ),
        (["--photos", "a", "--sizes", "1", "-2"], {"sizes": (1, -2)}),
        (["--photos", "a", "--sizes", "none"], {"sizes": None}),
    ],
)
def test_a_flag_of_several_values_takes_words_or_repeats_and_keeps_commas(arguments, expected):
    parsed = parse(Lists, arguments)
    assert {name: getattr(parsed, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--photos"], "--photos needs a value: a path, or several separated by blanks"),
        (["--photos", "--seed", "3"], "--photos needs a value; write --photos=VALUE if it begins"),
        (["--photos", "a", "--photos", "b"], "--photos is given twice; give it once, with all of"),
        (["--photos", "a", "--seed", "1", "--seed", "2"], "--seed is given 2 times; give it once"),
        (["--photos", "a", "--sizes", "1", "x"], "expects a whole number such as 1000, or several"),
        (["--photos", "a", "--sbatch", "x=1", "y=2"], "unexpected argument 'y=2'"),
        (["--fotos", "a", "b"], "unknown flag --fotos; did you mean --photos?"),
    ],
)
def test_a_list_that_cannot_be_read_is_told(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse(Lists, arguments)


def test_a_list_in_a_file_is_a_yaml_list_or_one_value(tmp_path):
    file = tmp_path / "lists.yaml"
    file.write_text("photos: [a, 'b,c']\nsbatch: mail-type=END,FAIL\n")
    parsed = parse(Lists, ["--config", str(file), "--seed", "1"])
    assert parsed.photos == (Path("a"), Path("b,c"))
    assert parsed.sbatch == ("mail-type=END,FAIL",)


def test_help_tells_how_several_values_are_written():
    text = help_text(Lists, program="p")
    assert "--photos PATH …" in text
    assert "may be repeated" in text
