# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs of databases: SQLSTATE classes, the names that psycopg gives them, and the vendors' own numbers."""

from __future__ import annotations

from pilotage.planner.detect.signs.rule import FailureRule, coded, phrases, words
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

R = FailureRule

NUMBERS: tuple[FailureRule, ...] = (
    # -- numbers that say more than their SQLSTATE
    R(id="db-login-refused", failure_class=F.AUTH, because="the database refused the login", strength="code",
      codes=coded("snowflake", "250001 250003 250006") | coded("sqlclass", "08"),
      phrases=phrases("incorrect username", "temporarily locked", "user is locked", "jwt token", "authentication", "role * does not exist", "invalid password", "password", "mfa", "not authorized", "is not allowed")),
    R(id="db-no-warehouse", failure_class=F.ENVIRONMENT, because="the session has no warehouse or database to work in", strength="code", codes=coded("snowflake", "000606 090105 090106 251005 251006 390201 390190")),
    R(id="db-deadlock", failure_class=F.TRANSIENT, because="the database chose it as the victim of a conflict", strength="code", cure=Cure.SECONDS,
      codes=coded("mysql", "1205 1213 3058") | coded("mssql", "1205 1222 3960") | coded("oracle", "ORA-00060 ORA-08177 ORA-00054 ORA-30006 ORA-04020") | coded("sqlclass", "40") | coded("sqlstate", "55P03") | coded("snowflake", "000625 000615")),
    R(id="db-busy", failure_class=F.TRANSIENT, because="the database takes no more connections at this moment", strength="code", cure=Cure.MINUTES,
      codes=coded("mysql", "1040 1203 1129") | coded("mssql", "10928 10929 40501 49918 49919 49920 40549 10936") | coded("oracle", "ORA-00018 ORA-00020 ORA-12516 ORA-12519 ORA-12520 ORA-02391 ORA-12518") | coded("sqlstate", "53300 57P03") | coded("oracle", "ORA-01033 ORA-01034")),
    R(id="db-connection", failure_class=F.TRANSIENT, because="the connection to the database failed", strength="code",
      codes=coded("mysql", "2002 2003 2005 2006 2013 2014 2055 1158 1159 1160 1161 1053 1927 4031") | coded("mssql", "233 10053 10054 10060 10061 11001 40197 40613 64 121 4221 19 258 20 40143 40540 40545")
      | coded("oracle", "ORA-03113 ORA-03114 ORA-03135 ORA-12170 ORA-12541 ORA-12537 ORA-12547 ORA-12571 ORA-12514 ORA-12528 ORA-12545 ORA-12560 ORA-01089 ORA-01090 ORA-01092 ORA-12152 ORA-25408 ORA-12543 ORA-12535 ORA-00028 ORA-02396 DPY-4011 DPY-6005 DPY-4024 DPI-1080 TNS-12541")
      | coded("sqlclass", "08") | coded("sqlstate", "57P01 57P02 57P05 HYT00 HYT01 25P03") | coded("snowflake", "250001 250003 250005 250007 250008 000603 000607 300002")),
    R(id="db-auth", failure_class=F.AUTH, because="the database refused the credentials or the right", strength="code",
      codes=coded("mysql", "1045 1044 1142 1143 1227 1370 1130 1698 1524 1820 3118 3159 1410 1251") | coded("mssql", "18456 18452 18470 18487 18488 229 230 262 297 300 916 4060 40615 40532 15247 33134")
      | coded("oracle", "ORA-01017 ORA-28000 ORA-28001 ORA-28002 ORA-01031 ORA-01045 ORA-28009 ORA-01005 ORA-28003 ORA-28759") | coded("sqlclass", "28") | coded("sqlstate", "42501 0P000")
      | coded("snowflake", "390100 390101 390102 390110 390111 390112 390114 390118 390144 390186 390189 390195 390197 390202 390302 390303 390318 390400 390422 390432 394304 003001 003041 250006")),
    R(id="db-disk", failure_class=F.INFRASTRUCTURE, because="the database's disk or table space is full", strength="code",
      codes=coded("mysql", "1021 1114 1041") | coded("mssql", "9002 1105 1101 3257") | coded("oracle", "ORA-01652 ORA-01653 ORA-01654 ORA-01688 ORA-01536 ORA-00257 ORA-30036 ORA-01691") | coded("sqlstate", "53100 53400")),
    R(id="db-time-limit", failure_class=F.TIMED_OUT, because="the database ended the statement at its time limit", strength="code",
      codes=coded("mysql", "3024 1969") | coded("snowflake", "000630") | coded("oracle", "ORA-00040 ORA-01013")),
    R(id="db-read-only", failure_class=F.TRANSIENT, because="the database is read-only, as after a failover", strength="code", cure=Cure.MINUTES,
      codes=coded("mysql", "1290 1836 1792") | coded("mssql", "3906 3908 976 983") | coded("sqlstate", "25006") | coded("oracle", "ORA-16000")),
    R(id="db-snapshot-old", failure_class=F.TRANSIENT, because="the query outlived its snapshot", strength="code", cure=Cure.MINUTES, codes=coded("oracle", "ORA-01555") | coded("sqlclass", "72")),
    R(id="db-memory", failure_class=F.TRANSIENT, because="the database ran out of its own memory", strength="code", cure=Cure.MINUTES,
      codes=coded("mssql", "701 8645 8651 802") | coded("oracle", "ORA-04030 ORA-04031 ORA-04036") | coded("sqlstate", "53200 53000") | coded("mysql", "1037 1038")),
    R(id="db-quota", failure_class=F.QUOTA_SPENT, because="the warehouse's credit quota is spent", strength="code", codes=coded("snowflake", "090073 090074")),
    R(id="db-data", failure_class=F.BAD_INPUT, because="the database does not accept the data", strength="code",
      codes=coded("mysql", "1062 1048 1364 1366 1406 1264 1292 1265 1451 1452 1169 1586 1216 1217 1411 3819 4025 1690 1118 1153") | coded("mssql", "2627 2601 547 515 8152 2628 245 8114 220 241 242 8115 206 13609 4863 4866 4864")
      | coded("oracle", "ORA-00001 ORA-01400 ORA-01407 ORA-01722 ORA-12899 ORA-02290 ORA-02291 ORA-02292 ORA-01438 ORA-01830 ORA-01843 ORA-01858 ORA-01861 ORA-06502 ORA-01461 ORA-01476 ORA-29913 ORA-02049 ORA-01489 ORA-01403 ORA-01422 ORA-20001")
      | coded("sqlclass", "22 23 44 21") | coded("sqlstate", "P0001 P0002 P0003") | coded("snowflake", "100038 100035 100037 100039 100040 100046 100051 100069 100071 100072 100074 100078 100080 100096 100132 100183 100189 100100 100090 100016 100065 100066 100078 003622 091016 001300")),
    R(id="db-column", failure_class=F.CODE_BUG, because="a column, function or statement does not fit the schema", strength="code",
      codes=coded("mysql", "1054 1064 1060 1061 1050 1091 1136 1305 1318 1222 1248 1149 1235 1055 1140 1241 1111 1052 1007") | coded("mssql", "207 102 156 213 120 121 137 2714 2812 201 8144 8145 209 4104 1913 319 195")
      | coded("oracle", "ORA-00904 ORA-00900 ORA-00905 ORA-00907 ORA-00911 ORA-00913 ORA-00917 ORA-00918 ORA-00920 ORA-00923 ORA-00932 ORA-00933 ORA-00936 ORA-00947 ORA-00955 ORA-00979 ORA-01008 ORA-01036 ORA-06550 ORA-01747 ORA-00972 ORA-04068 ORA-04063 ORA-00903")
      | coded("sqlstate", "42703 42601 42804 42883 42P07 42701 42702 42712 42803 42725 42846 42723 42P10 42P18 42611 42710 42P06 42P04 42S22 42S21 42S01 42000 42622 0A000") | coded("snowflake", "000904 001003 000939 001007 001044 002049 000979 002140 002027 001789 000002 001065 002262")),
    R(id="db-absent", failure_class=F.DEPENDENCY, because="a table, schema or database that it needs is not there", strength="code", cure=Cure.OWNER,
      codes=coded("mysql", "1146 1049 1051 1109 1008") | coded("mssql", "208 911 3701 4902 15151 2702") | coded("oracle", "ORA-00942 ORA-04043 ORA-01435 ORA-02289 ORA-12154 ORA-12505 ORA-02019 ORA-01918") | coded("sqlstate", "42P01 3D000 3F000 42704 42S02 58P01") | coded("snowflake", "002003 002043 253006")),
    R(id="db-code", failure_class=F.CODE_BUG, because="the statement does not fit the database", strength="code",
      codes=coded("sqlclass", "0A 25 26 2B 34 42 54 55 HV")),
    R(id="db-internal", failure_class=F.TRANSIENT, because="the database failed inside", strength="code", cure=Cure.MINUTES, codes=coded("sqlclass", "58 XX") | coded("oracle", "ORA-00600 ORA-07445")),
)  # fmt: skip

CANCELLED_QUERY: tuple[FailureRule, ...] = (
    R(id="query-recovery", failure_class=F.TRANSIENT, because="a standby cancelled the query to catch up", strength="code", cure=Cure.SECONDS,
      phrases=phrases("conflict with recovery")),
    R(id="query-time-limit", failure_class=F.TIMED_OUT, because="the database ended the statement at its time limit", strength="code",
      phrases=phrases("canceling statement due to statement timeout", "statement timeout", "maximum statement execution time exceeded", "query execution was interrupted, maximum", "statement reached its statement or warehouse timeout", "query timed out", "query exceeded the maximum execution time", "timeout exceeded: elapsed", "query exceeded maximum time", "max_statement_time", "query has timed out", "execution timeout expired")),
    R(id="database-absent", failure_class=F.DEPENDENCY, because="the database that it connects to does not exist", strength="code", cure=Cure.OWNER,
      phrases=phrases("fatal: database * does not exist", "database * does not exist", "unknown database", "cannot open database", "catalog * does not exist")),
    R(id="lock-time-limit", failure_class=F.TRANSIENT, because="a lock in the database did not come free in time", strength="code", cure=Cure.SECONDS,
      phrases=phrases("lock wait timeout", "lock timeout", "could not obtain lock", "deadlock", "could not serialize access", "database is locked", "database table is locked", "resource busy and acquire", "lock request time out", "concurrentappendexception", "concurrentmodificationexception", "concurrentdeletereadexception", "concurrentdeletedeleteexception", "concurrenttransactionexception", "metadatachangedexception", "protocolchangedexception", "serialization failure", "restart transaction", "writeconflict", "write conflict", "could not serialize", "concurrent update", "commitfailedexception", "transaction was aborted due to concurrent", "number of waiters for this lock exceeds", "failed to commit * concurrent", "commit conflict", "conflictingoperationinprogress", "serializable isolation violation", "1023 * serializable", "concurrent transaction", "could not set lock on file", "conflicting lock is held")),
    R(id="connections-used-up", failure_class=F.TRANSIENT, because="the database takes no more connections at this moment", strength="code", cure=Cure.MINUTES,
      phrases=phrases("too many connections", "too many clients", "remaining connection slots are reserved", "connection slots are reserved", "max_user_connections", "maxclientsinsessionmode", "max client connections reached", "no more connections allowed", "pool_timeout", "queuepool limit", "connection pool exhausted", "pool exhausted", "too many concurrent queries", "too many concurrent requests", "too many simultaneous queries", "unable to get a connection from the pool", "connection pool is full", "max clients reached", "connection limit exceeded", "the database system is starting up", "the database system is in recovery mode", "the database system is shutting down", "redis is loading the dataset", "loading redis is loading", "exceeds the maximum number of connections", "the request limit for the database", "reached the maximum number of connections", "couldn't get a connection after", "pool timeout", "resource limit was reached * database", "couldn't acquire connection", "statements queued", "exceeded concurrency limit * queries")),
    R(id="server-memory-busy", failure_class=F.TRANSIENT, because="the database is short of resources at this moment", strength="code", cure=Cure.MINUTES,
      phrases=phrases("clusterdown", "masterdown", "tryagain multiple keys", "readonly you can't write against", "cluster is down", "misconf redis", "not primary", "notwritableprimary", "no primary", "not master", "node is recovering", "no replica set members", "primary stepped down", "serverselectiontimeout", "not_leader", "no brokers available", "nobrokersavailable", "broker transport failure", "all brokers are down", "coordinator not available", "not coordinator", "leader not available", "all shards failed", "no_shard_available", "cluster currently in recovery", "is not available currently", "currently not available", "database * is not currently available", "warehouse * is suspended", "cluster is starting", "cluster_not_ready", "the cluster is resizing", "unavailable for writes", "noavailablenodes", "no living connections", "too many parts", "replicas are not", "keeper exception", "session expired * zookeeper", "all connection tries failed", "processing aborted due to error", "sql execution internal error", "incident ", "in a read-only transaction", "in safe mode", "safemode", "read-only mode", "standby")),
)  # fmt: skip

# Names that psycopg and psycopg2 give to the SQLSTATEs; SQLAlchemy shows them in brackets.
NAMES: tuple[FailureRule, ...] = (
    R(id="pg-conflict", failure_class=F.TRANSIENT, because="the database chose it as the victim of a conflict", strength="code", cure=Cure.SECONDS,
      exceptions=words("SerializationFailure DeadlockDetected TransactionRollback LockNotAvailable StatementCompletionUnknown DeadlockDetectedError SerializationError_ LockNotAvailableError TransactionIntegrityConstraintViolation")),
    R(id="pg-busy", failure_class=F.TRANSIENT, because="the database takes no more connections at this moment", strength="code", cure=Cure.MINUTES,
      exceptions=words("TooManyConnections TooManyConnectionsError CannotConnectNow CannotConnectNowError InsufficientResources ReadOnlySqlTransaction ReadOnlySQLTransactionError PoolTimeout_ PoolClosed_")),
    R(id="pg-connection", failure_class=F.TRANSIENT, because="the connection to the database failed", strength="code",
      exceptions=words("ConnectionFailure ConnectionDoesNotExist ConnectionDoesNotExistError SqlclientUnableToEstablishSqlconnection SqlserverRejectedEstablishmentOfSqlconnection AdminShutdown AdminShutdownError CrashShutdown IdleInTransactionSessionTimeout IdleSessionTimeout ProtocolViolation ConnectionException TransactionTimeout ConnectionFailureError TransactionResolutionUnknown")),
    R(id="pg-cancelled", failure_class=F.TIMED_OUT, because="the database cancelled the statement", strength="family",
      exceptions=words("QueryCanceled QueryCanceledError QueryCancelled")),
    R(id="pg-disk", failure_class=F.INFRASTRUCTURE, because="the database's disk is full", strength="code", exceptions=words("DiskFull DiskFullError ConfigurationLimitExceeded")),
    R(id="pg-auth", failure_class=F.AUTH, because="the database refused the credentials or the right", strength="code",
      exceptions=words("InsufficientPrivilege InsufficientPrivilegeError InvalidPassword InvalidPasswordError InvalidAuthorizationSpecification InvalidAuthorizationSpecificationError InvalidRoleSpecification")),
    R(id="pg-data", failure_class=F.BAD_INPUT, because="the database does not accept the data", strength="code",
      exceptions=words("UniqueViolation UniqueViolationError NotNullViolation NotNullViolationError ForeignKeyViolation ForeignKeyViolationError CheckViolation CheckViolationError ExclusionViolation RestrictViolation IntegrityConstraintViolation StringDataRightTruncation NumericValueOutOfRange NumericValueOutOfRangeError InvalidTextRepresentation InvalidTextRepresentationError InvalidDatetimeFormat DatetimeFieldOverflow CharacterNotInRepertoire BadCopyFileFormat UntranslatableCharacter InvalidJsonText DataException NullValueNotAllowed CardinalityViolation RaiseException NoDataFound TooManyRows InvalidParameterValue InvalidBinaryRepresentation DivisionByZero WithCheckOptionViolation StringDataRightTruncationError InvalidDatetimeFormatError")),
    R(id="pg-schema", failure_class=F.CODE_BUG, because="a column, function or statement does not fit the schema", strength="code",
      exceptions=words("UndefinedColumn UndefinedColumnError UndefinedFunction UndefinedFunctionError DatatypeMismatch DatatypeMismatchError AmbiguousColumn SyntaxErrorOrAccessRuleViolation PostgresSyntaxError DuplicateTable DuplicateTableError DuplicateColumn DuplicateObject GroupingError CannotCoerce WrongObjectType FeatureNotSupported InFailedSqlTransaction NoActiveSqlTransaction DependentObjectsStillExist ObjectInUse DuplicateSchema DuplicateDatabase InvalidColumnReference IndeterminateDatatype InvalidTableDefinition ProgramLimitExceeded StatementTooComplex TooManyColumns TooManyArguments ActiveSqlTransaction InvalidSqlStatementName DuplicatePreparedStatement InvalidCursorName")),
    R(id="pg-absent", failure_class=F.DEPENDENCY, because="a table, schema or database that it needs is not there", strength="code", cure=Cure.OWNER,
      exceptions=words("UndefinedTable UndefinedTableError InvalidCatalogName InvalidCatalogNameError InvalidSchemaName UndefinedObject UndefinedFile")),
)  # fmt: skip
