"""Write a generated knowledge graph and its questions to files: kg.json, train.jsonl, val.jsonl, test.jsonl.

python scripts/generate_kg.py --out data/kg --entities 48 --seed 0
"""

import argparse
import sys
from pathlib import Path

from jaxrl.config.tasks import KnowledgeGraphSection
from jaxrl.tasks.graph.task import KnowledgeGraph


def main() -> int:
    fields = KnowledgeGraphSection.model_fields
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to (made if missing)")
    for name in ("entities", "relations", "train", "val", "test"):
        parser.add_argument(f"--{name}", type=int, default=fields[name].default, help="default: %(default)s")
    parser.add_argument(
        "--hops", type=int, nargs="+", default=list(fields["hops"].default), help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the graph and of the questions; default: %(default)s"
    )
    flags = vars(parser.parse_args())
    out, seed = flags.pop("out"), flags.pop("seed")
    try:
        section = KnowledgeGraphSection(name="knowledge_graph", graph_seed=seed, question_seed=seed, **flags)
        KnowledgeGraph(section).write(out)
    except ValueError as error:  # InputError, or a number outside its range
        print(error, file=sys.stderr)
        return 2
    print(f"wrote kg.json, train.jsonl, val.jsonl and test.jsonl to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
