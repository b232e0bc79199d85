"""Names of workers that other frameworks give."""

ODD_NAMES = [
    "a:b",
    "Acme Bot",
    "9f86d081-884c-4d65-9a2f-eaa0c55ad015",
    "PipelineWorker#0",
    "Zoë & Søn (2)",
    "{brace}x'q\"",
    "漢字",
    "a=b;c|d",
    "v1.final",
    "%41",
]
