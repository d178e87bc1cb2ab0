"""Trains the convolutional network of `tests/compare/candle_train/src/bin/cnn.rs` with PyTorch, and times its steps.

    python tests/compare/cnn_step.py --batch 64 --steps 12 --threads 2

Prints one line of JSON: seconds of each step, losses, and the most memory in use.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn
from train_step import timed_steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    convolution = lambda i, o: nn.Conv2d(i, o, 3, padding=1)
    net = nn.Sequential(convolution(3, 32), nn.ReLU(), nn.MaxPool2d(2), convolution(32, 64), nn.ReLU(), nn.MaxPool2d(2),
                        convolution(64, 128), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    pictures, labels = torch.randn(o.batch, 3, 32, 32), torch.arange(o.batch) % 10
    timed_steps(optimizer, range(o.steps), lambda _: F.cross_entropy(net(pictures), labels))


if __name__ == "__main__":
    main()
