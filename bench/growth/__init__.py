"""How cost grows: CPU and latency along one axis at a time: `scripts/bench --plot`.

axes      what is varied, and how each point is driven; pure      chart   one picture as SVG; pure
page      tables, and the page they stand in; pure                play    drives the points, writes pictures and page
"""
