"""Known data sets in small: drawings in the layouts of CIFAR-10 and Flickr8k, with the splits of each."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from limner.builtin.drawings import draw_folder
from limner.data.cifar10 import LABELS


def draw_cifar10(folder: Path) -> Path:
    """Writes class folders with two pictures of each class to train on and one to measure on, all different."""
    for split, count in (("train", 2), ("test", 1)):
        for place, label in enumerate(LABELS):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                picture = Image.linear_gradient("L").resize((32, 32)).rotate(36 * place)
                tint = Image.new("L", (32, 32), 40 * (number + len(split)) % 256)
                Image.merge("RGB", (picture, tint, picture)).save(folder / split / label / f"{number}.png")
    return folder


def draw_flickr8k(folder: Path) -> Path:
    """Writes eight photos with two captions each in Kaggle's layout, and the original lists: four to train, four to
    measure."""
    captions = draw_folder(folder / "Images", count=8)
    for sidecar in (folder / "Images").glob("*.txt"):
        sidecar.unlink()
    names = sorted(path.name for path in (folder / "Images").glob("*.png"))
    lines = ["image,caption"]
    for name, caption in zip(names, captions, strict=True):
        lines += [f'{name},"{caption} , seen twice ."', f'{name},"{name} {caption}"']
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")
    for split, part in (("train", names[:4]), ("test", names[4:])):
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(part) + "\n")
    return folder
