# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs of data servers that name their errors themselves: ClickHouse, Kafka, Trino, MongoDB, Elasticsearch and Redis.

From their sources: ClickHouse's ErrorCodes.cpp, librdkafka's rd_kafka_err_descs, Trino's StandardErrorCode, MongoDB's
error_codes.yml, Elasticsearch's exception types, Redis' error prefixes. What such a server has too little of, memory as well,
no size of the run changes.
"""

from __future__ import annotations

from pilotage.planner.detect.signs.rule import FailureRule, coded, phrases, words
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

R = FailureRule


def _rows(
    name: str,
    failure_class: F,
    because: str,
    *,
    clickhouse: str = "",
    names: str = "",
    texts: tuple[str, ...] = (),
    cure: Cure | None = None,
) -> tuple[FailureRule, ...]:
    """Return one meaning as up to three rows: by ClickHouse's numbers, by names of errors, by words."""
    rows = []
    if clickhouse:
        rows.append(
            R(
                id=name,
                failure_class=failure_class,
                because=because,
                strength="code",
                cure=cure,
                codes=coded("clickhouse", clickhouse),
            )
        )
    if names:
        rows.append(
            R(
                id=f"{name}-name",
                failure_class=failure_class,
                because=because,
                strength="code",
                cure=cure,
                exceptions=words(names),
            )
        )
    if texts:
        rows.append(
            R(
                id=f"{name}-text",
                failure_class=failure_class,
                because=because,
                strength="code",
                cure=cure,
                phrases=phrases(*texts),
            )
        )
    return tuple(rows)


SERVERS: tuple[FailureRule, ...] = (
    # -- wants somebody
    *_rows("server-auth", F.AUTH, "the server refused the credentials or the right",
           clickhouse="192 193 194 195 497 516",
           names="TOPIC_AUTHORIZATION_FAILED GROUP_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED TRANSACTIONAL_ID_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTHORIZATION_FAILED SASL_AUTHENTICATION_FAILED _AUTHENTICATION"),
    *_rows("server-absent", F.DEPENDENCY, "a table, topic, index or database that it needs is not there", cure=Cure.OWNER,
           clickhouse="60 81 218",
           names="UNKNOWN_TOPIC_OR_PART UNKNOWN_TOPIC_OR_PARTITION _UNKNOWN_TOPIC _UNKNOWN_PARTITION UNKNOWN_TOPIC_ID TABLE_NOT_FOUND SCHEMA_NOT_FOUND CATALOG_NOT_FOUND NamespaceNotFound IndexNotFound",
           texts=("index_not_found_exception",)),
    *_rows("server-data", F.BAD_INPUT, "the server does not accept the data",
           clickhouse="6 26 27 38 41 53 69 70 72 117 130 131 321 349 469",
           names="MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE INVALID_MSG INVALID_MSG_SIZE INVALID_RECORD POLICY_VIOLATION INVALID_TIMESTAMP CORRUPT_MESSAGE_FORMAT _KEY_SERIALIZATION _VALUE_SERIALIZATION _KEY_DESERIALIZATION _VALUE_DESERIALIZATION HIVE_BAD_DATA INVALID_CAST_ARGUMENT NUMERIC_VALUE_OUT_OF_RANGE CONSTRAINT_VIOLATION DuplicateKey BSONObjectTooLarge DocumentValidationFailure ICEBERG_BAD_DATA",
           texts=("broker: message size too large", "broker: invalid message", "broker: message batch larger", "mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception", "version_conflict_engine_exception", "resource_already_exists_exception", "e11000 duplicate key")),
    *_rows("server-query-too-large", F.CODE_BUG, "the query asks for more than its server gives to one",
           clickhouse="158 161 162 168 191 307 396",
           names="EXCEEDED_LOCAL_MEMORY_LIMIT EXCEEDED_GLOBAL_MEMORY_LIMIT EXCEEDED_SPILL_LIMIT EXCEEDED_SCAN_LIMIT EXCEEDED_TIME_LIMIT EXCEEDED_CPU_LIMIT GENERIC_INSUFFICIENT_RESOURCES QueryExceededMemoryLimitNoDiskUseAllowed",
           texts=("allowdiskuse", "result window is too large", "too_many_buckets_exception")),
    *_rows("server-code", F.CODE_BUG, "the statement does not fit the server",
           clickhouse="36 42 43 44 46 47 48 62 63 80 115 179 184 207 215 352 386 403",
           names="SYNTAX_ERROR COLUMN_NOT_FOUND FUNCTION_NOT_FOUND TYPE_MISMATCH AMBIGUOUS_NAME INVALID_FUNCTION_ARGUMENT CommandNotFound FailedToParse _INVALID_ARG _UNSUPPORTED_FEATURE UNSUPPORTED_VERSION",
           texts=("query_shard_exception", "x_content_parse_exception", "wrongtype operation against a key", "crossslot keys in request")),
    # -- passes by itself
    *_rows("server-busy", F.CAPACITY, "the server's memory, queue or pool is full of others' work",
           clickhouse="202 203 241 252 439 735",
           names="QUERY_QUEUE_FULL CLUSTER_OUT_OF_MEMORY NO_NODES_AVAILABLE _QUEUE_FULL",
           texts=("circuit_breaking_exception",)),
    *_rows("server-asks-to-wait", F.RATE_LIMITED, "the server asked to slow down",
           clickhouse="201", names="THROTTLING_QUOTA_EXCEEDED", texts=("es_rejected_execution_exception",)),
    *_rows("server-passing", F.TRANSIENT, "the server lost a connection, a leader or a node for a moment",
           clickhouse="3 159 160 209 210 225 242 279 285 286 319 425 999",
           names="_TRANSPORT _ALL_BROKERS_DOWN _TIMED_OUT _MSG_TIMED_OUT _TIMED_OUT_QUEUE LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION NOT_LEADER_OR_FOLLOWER REQUEST_TIMED_OUT BROKER_NOT_AVAILABLE REPLICA_NOT_AVAILABLE NETWORK_EXCEPTION COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR GROUP_COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR_FOR_GROUP REBALANCE_IN_PROGRESS NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND KAFKA_STORAGE_ERROR UNKNOWN_MEMBER_ID ILLEGAL_GENERATION NOT_CONTROLLER FENCED_LEADER_EPOCH UNSTABLE_OFFSET_COMMIT PREFERRED_LEADER_NOT_AVAILABLE _WAIT_COORD _MAX_POLL_EXCEEDED REMOTE_HOST_GONE PAGE_TRANSPORT_ERROR PAGE_TRANSPORT_TIMEOUT REMOTE_TASK_ERROR REMOTE_TASK_MISMATCH WORKER_RESTARTED SERVER_SHUTTING_DOWN SERVER_STARTING_UP NotWritablePrimary NotPrimaryNoSecondaryOk NotPrimaryOrSecondary PrimarySteppedDown InterruptedDueToReplStateChange InterruptedAtShutdown ShutdownInProgress HostUnreachable HostNotFound WriteConflict ReadConcernMajorityNotAvailableYet",
           texts=("broker: leader not available", "broker: not leader", "broker: request timed out", "broker: coordinator", "broker: not coordinator", "broker: not enough in-sync", "broker: broker not available", "broker: group rebalance", "no_shard_available_action_exception", "master_not_discovered_exception", "node_not_connected_exception", "node_closed_exception", "receive_timeout_transport_exception", "unavailable_shards_exception", "redis is loading the dataset")),
)  # fmt: skip

REMOTE_CLIENTS = words(
    "clickhouse_connect clickhouse_driver redis pymongo trino prestodb pyhive google snowflake psycopg psycopg2 asyncpg pg8000 "
    "redshift_connector pymysql MySQLdb _mysql_exceptions mysql mariadb pymssql pyodbc oracledb cx_Oracle elasticsearch "
    "elastic_transport opensearchpy botocore boto3 azure requests httpx httpcore aiohttp urllib3 openai anthropic databricks "
    "impala cassandra kafka confluent_kafka cimpl neo4j influxdb_client grpc googleapiclient simple_salesforce ibm_db vertica_python "
    "teradatasql hdbcli couchbase pika aiokafka meilisearch qdrant_client weaviate pinecone"
)
"""Packages whose exceptions carry the words of a server: memory that is short there is not the run's."""
