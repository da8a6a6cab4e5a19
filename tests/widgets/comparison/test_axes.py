"""What a hatched cell is said to lack."""

from explorers import Net, Slow, explore


def test_a_statistic_without_numbers_says_why():
    explorer = explore({"A": Net(), "B": [Net(seed=1), Net(seed=2)]}, Slow(4))
    explorer.run()
    explorer.wait()
    heatmap = explorer.heatmap
    assert heatmap.reason == ""
    explorer.statistic = "stderr"
    assert heatmap.reason == "no error bar yet: fewer than 5 blocks of independent samples"
    explorer.statistic, explorer.pair = "spread", ("A", "A")
    assert heatmap.reason == "one pair only: no spread"
    explorer.statistic = "mean"
    assert heatmap.reason == ""
