"""What makes a span of a language model a person's name, and how a long text is cut for it. Pure.

The small English model calls much PERSON that is none ("Explain Kubernetes", "Redis", identifiers in code). A span
is kept only when it can be a name: letters, at most five words, not a word of our trade; a verb or a greeting before
the name and a possessive after it are cut off.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from workers.guardrails.scanners.finding import Finding

CHUNK = 2000  # characters given to the model at once, about 350 words
OVERLAP = 100  # characters two neighbouring chunks share, so that no name is cut
_MIN_NAME = 3

_NAME = re.compile(r"[^\W\d_]+(?:[.'’-]?[^\W\d_]+)*\.?(?:[ \u00a0]{1,2}[^\W\d_]+(?:[.'’-]?[^\W\d_]+)*\.?){0,4}")
_LEAD = frozenset((
    "explain", "describe", "summarise", "summarize", "translate", "write", "tell", "give", "show", "list",
    "compare", "define", "analyze", "analyse", "discuss", "generate", "create", "draft", "review", "rewrite",
    "fix", "debug", "implement", "use", "install", "run", "deploy", "configure", "check", "find", "ask", "call",
    "email", "mail", "contact", "send", "forward", "remind", "dear", "hi", "hello", "hey", "thanks", "thank",
    "please", "greetings", "regards", "sincerely", "what", "who", "why", "how", "when", "where", "which", "is",
    "are", "was", "were", "do", "does", "did", "can", "could", "should", "would", "will", "the", "a", "an", "my",
    "our", "your", "his", "her", "their", "from", "to", "by", "for", "with", "and", "or", "cc", "bcc", "mr", "mrs",
    "ms", "miss", "dr", "prof", "sir", "madam",
))  # fmt: skip
_PREFIXES = frozenset(("Mc", "Mac", "De", "Di", "La", "Le", "Van", "Fitz", "O"))
_TITLES = frozenset(["mr", "mrs", "ms", "miss", "dr", "prof", "sir", "madam"])
_TRADE = frozenset((
    "kubernetes", "docker", "redis", "valkey", "kafka", "postgres", "postgresql", "mysql", "sqlite", "mongodb",
    "elasticsearch", "python", "java", "javascript", "typescript", "rust", "golang", "kotlin", "swift", "ruby",
    "perl", "php", "scala", "haskell", "julia", "bash", "linux", "unix", "ubuntu", "debian", "fedora", "windows",
    "macos", "android", "ios", "git", "github", "gitlab", "bitbucket", "jenkins", "ansible", "terraform", "helm",
    "grafana", "prometheus", "nginx", "apache", "envoy", "istio", "django", "flask", "fastapi", "spring", "react",
    "angular", "vue", "svelte", "node", "numpy", "pandas", "pytorch", "tensorflow", "keras", "jupyter", "anaconda",
    "claude", "gemini", "llama", "mistral", "gpt", "chatgpt", "openai", "anthropic", "copilot", "bert", "siri",
    "alexa", "cortana", "json", "yaml", "xml", "html", "css", "sql", "api", "sdk", "cli", "gpu", "cpu", "ssn",
    "iban", "vat", "gdpr", "hipaa", "aws", "azure", "gcp", "lambda", "excel", "word", "powerpoint", "outlook",
    "slack", "jira", "confluence", "markdown", "latex", "regex", "unicode", "ascii", "webhook", "localhost",
    "todo", "readme", "hamiltonian", "gaussian", "bayesian", "fourier", "laplace", "bernoulli", "poisson",
    "markov", "monte", "carlo", "dijkstra", "fibonacci", "turing", "hadoop", "spark", "airflow", "celery",
    "rabbitmq", "vite", "webpack", "babel", "eslint", "lorem", "ipsum", "foo", "bar", "baz", "qux",
))  # fmt: skip


def chunks(text: str) -> list[tuple[int, str]]:
    """(offset, piece) pairs that cover `text`, each at most CHUNK long, cut at blanks where there are any."""
    pieces: list[tuple[int, str]] = []
    start = 0
    while len(text) - start > CHUNK:
        cut = text.rfind(" ", start + CHUNK // 2, start + CHUNK)
        end = cut if cut > 0 else start + CHUNK
        pieces.append((start, text[start:end]))
        start = end - OVERLAP
    pieces.append((start, text[start:]))
    return pieces


def persons(text: str, spans: Iterable[tuple[int, int]]) -> list[Finding]:
    """Findings for the spans that can be names, trimmed to the name, by position and each once."""
    names = {name for start, end in spans if (name := trim(text, start, end))}
    return [Finding(start, end, "persons", "persons/spacy", 0.7) for start, end in sorted(names)]


def trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The part of a span that is a name, or None."""
    match = _NAME.match(text, start, end)
    if not match or _in_code(text, match.start(), match.end()):
        return None
    words = [(word.start(), word.end()) for word in re.finditer(r"\S+", text[: match.end()][start:])]
    places = [(start + low, start + high) for low, high in words]
    while places and _bare(text, places[0]) in _LEAD:
        titled = _bare(text, places[0]) in _TITLES
        places = places[1:]
        if titled:
            break
    if not places or any(_bare(text, place) in _TRADE for place in places):
        return None
    low, high = places[0][0], _without_possessive(text, places[-1][1])
    return (low, high) if _is_name(text[low:high]) else None


def _bare(text: str, place: tuple[int, int]) -> str:
    return text[place[0] : place[1]].rstrip(".,'’").lower()


def _in_code(text: str, start: int, end: int) -> bool:
    """Glued to what names are not glued to: identifiers, paths, calls, addresses."""
    left, right = text[start - 1 : start] if start else "", text[end : end + 1]
    return bool(left and left in "_/\\@#$.=<{`-") or bool(right and right in "_/\\@(=>{`0123456789")


def _without_possessive(text: str, end: int) -> int:
    return end - 2 if text[end - 2 : end] in ("'s", "’s") else end


def _is_name(name: str) -> bool:
    if len(name) < _MIN_NAME or (name.isupper() and " " not in name):
        return False
    inner = re.search(r"[a-z][A-Z]", name)  # camelCase, but McDonald, DeVito, LeBron are names
    return not inner or name[: inner.start() + 1].split()[-1] in _PREFIXES


def regroup(counts: Sequence[int], answers: Sequence[Sequence[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """The answers of all chunks, given back text by text: counts[i] chunks belong to text i."""
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    grouped: list[list[tuple[int, int]]] = [[] for _ in counts]
    for index, spans in enumerate(answers):
        grouped[bisect_right(ends, index)].extend(spans)
    return grouped
