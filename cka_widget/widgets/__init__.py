"""The views: pickers, heatmap, drill-down and the explorer that joins them."""
