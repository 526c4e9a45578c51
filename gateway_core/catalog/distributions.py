"""Names the distribution that provides a missing module.

Only modules of this table are named: a guess could be the name of an unknown package on the index.
"""

# Modules whose distribution has another name, by the longest matching prefix.
_OTHER_NAMES = {
    "attr": "attrs",
    "azure.ai.agents": "azure-ai-agents",
    "azure.ai.inference": "azure-ai-inference",
    "azure.ai.projects": "azure-ai-projects",
    "azure.core": "azure-core",
    "azure.cosmos": "azure-cosmos",
    "azure.identity": "azure-identity",
    "azure.keyvault.secrets": "azure-keyvault-secrets",
    "azure.monitor.opentelemetry": "azure-monitor-opentelemetry",
    "azure.search.documents": "azure-search-documents",
    "azure.storage.blob": "azure-storage-blob",
    "bs4": "beautifulsoup4",
    "chatkit": "openai-chatkit",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "discord": "discord.py",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "firecrawl": "firecrawl-py",
    "fitz": "pymupdf",
    "git": "gitpython",
    "github": "pygithub",
    "google.adk": "google-adk",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.aiplatform": "google-cloud-aiplatform",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.firestore": "google-cloud-firestore",
    "google.cloud.logging": "google-cloud-logging",
    "google.cloud.pubsub": "google-cloud-pubsub",
    "google.cloud.pubsub_v1": "google-cloud-pubsub",
    "google.cloud.secretmanager": "google-cloud-secret-manager",
    "google.cloud.speech": "google-cloud-speech",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.texttospeech": "google-cloud-texttospeech",
    "google.cloud.translate": "google-cloud-translate",
    "google.cloud.vision": "google-cloud-vision",
    "google.genai": "google-genai",
    "google.generativeai": "google-generativeai",
    "google.oauth2": "google-auth",
    "google.protobuf": "protobuf",
    "googleapiclient": "google-api-python-client",
    "googlesearch": "googlesearch-python",
    "grpc": "grpcio",
    "guardrails": "openai-guardrails",
    "hubspot": "hubspot-api-client",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "kafka": "kafka-python",
    "llama_index.core": "llama-index-core",
    "magic": "python-magic",
    "mem0": "mem0ai",
    "multipart": "python-multipart",
    "mysql.connector": "mysql-connector-python",
    "MySQLdb": "mysqlclient",
    "newspaper": "newspaper3k",
    "openinference.instrumentation": "openinference-instrumentation",
    "openinference.instrumentation.openai": "openinference-instrumentation-openai",
    "openinference.instrumentation.openai_agents": "openinference-instrumentation-openai-agents",
    "OpenSSL": "pyopenssl",
    "phoenix": "arize-phoenix",
    "phoenix.otel": "arize-phoenix-otel",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "PyPDF2": "pypdf2",
    "pythonjsonlogger": "python-json-logger",
    "rest_framework": "djangorestframework",
    "restate": "restate-sdk",
    "ruamel.yaml": "ruamel.yaml",
    "serial": "pyserial",
    "serpapi": "google-search-results",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "socks": "pysocks",
    "speech_recognition": "speechrecognition",
    "tavily": "tavily-python",
    "telebot": "pytelegrambotapi",
    "telegram": "python-telegram-bot",
    "tortoise": "tortoise-orm",
    "usb": "pyusb",
    "weaviate": "weaviate-client",
    "websocket": "websocket-client",
    "whisper": "openai-whisper",
    "win32api": "pywin32",
    "win32com": "pywin32",
    "wx": "wxpython",
    "Xlib": "python-xlib",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
# Modules whose distribution has the same name, with `-` for `_`.
_SAME_NAME = frozenset(
    """
    agentops aiofiles aiohttp aiosqlite alembic altair anthropic apscheduler arxiv asyncpg babel backoff bcrypt
    boto3 botocore braintrust cachetools celery certifi chainlit chardet chromadb claude_agent_sdk click cohere
    colorama composio_openai_agents crewai cryptography dash datasets dateparser ddgs django docx2txt dspy
    duckduckgo_search e2b_code_interpreter elasticsearch emoji exa_py faker fastapi fastmcp feedparser flask
    flask_cors google_auth_oauthlib googlemaps gradio graphviz groq gspread gtts holidays html2text httpx
    humanize icalendar instructor ipykernel isodate jinja2 joblib jsonschema keyring langchain
    langchain_community langchain_core langchain_openai langchain_text_splitters langfuse langgraph langsmith
    librosa litellm llama_index logfire loguru lxml markdown matplotlib mcp mlflow motor moviepy neo4j
    nest_asyncio networkx nltk notion_client numpy ollama openpyxl orjson pandas passlib pdfplumber peewee
    pendulum phonenumbers pinecone playwright plotly polars praw prefect prometheus_client psutil psycopg
    pyautogui pydantic pydantic_ai pydantic_settings pydub pygame pymongo pymysql pypandoc pypdf pyperclip
    pytesseract pytest pytz qdrant_client qrcode ragas redis regex replicate reportlab requests rich
    scipy scrapy seaborn selenium sendgrid sentence_transformers sentry_sdk shapely simplejson slack_bolt
    slack_sdk smolagents sounddevice spacy sqlalchemy sqlmodel sse_starlette starlette streamlit stripe
    structlog supabase sympy tabulate temporalio tenacity textual tiktoken tokenizers torch torchvision tornado
    tqdm transformers tweepy twilio typer typing_extensions tzlocal unidecode uvicorn wandb watchdog weasyprint
    websockets wikipedia xgboost xlrd xmltodict yarl yfinance youtube_transcript_api
    """.split()  # noqa: SIM905
)


def distribution_of(modules: list[str]) -> str | None:
    """Return the distribution that provides one of the modules; `None` if it is not known.

    Args:
        modules: Full names of modules, the most specific first, such as `google.cloud.storage`.
    """
    for module in modules:
        parts = module.split(".")
        for end in range(len(parts), 0, -1):
            if found := _OTHER_NAMES.get(".".join(parts[:end])):
                return found
        if parts[0] in _SAME_NAME:
            return parts[0].replace("_", "-")
    return None
