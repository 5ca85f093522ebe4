"""Small trees of simulated files for the tests of the MM-Fi example."""

from pathlib import Path

import pytest

from examples.mmfi.conventions import Conventions
from examples.mmfi.pack import pack
from examples.mmfi.simulator import Settings, simulate_tree
from tests.mmfi.raw_tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "raw").write()


@pytest.fixture(scope="session")
def packed_tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Path]:
    """A tree and its packed copy, for tests that change neither."""
    tree = Tree(tmp_path_factory.mktemp("tree") / "raw").write()
    out = tree.root.parent / "packed"
    pack(tree.root, out, Conventions())
    return tree, out


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A simulated tree, of which split S2 tests on S05, and its packed copy."""
    root = tmp_path_factory.mktemp("simulated")
    simulate_tree(root / "raw", ["S01", "S02", "S03", "S05"], ["A02", "A03"], Settings(frames=10))
    pack(root / "raw", root / "packed", Conventions())
    return root / "raw", root / "packed"
