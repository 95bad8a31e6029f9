"""The methods of Penstock's services that the clients call, with the types of their messages."""

from __future__ import annotations

from google.protobuf import wrappers_pb2

from penstock.exchange import Method
from penstock.v1 import bulk_pb2, inference_pb2, model_pb2, schedule_pb2

_INFERENCE = "/penstock.v1.InferenceService"
_BULK = "/penstock.v1.BulkService"
_SCHEDULE = "/penstock.v1.ScheduleService"
_MODEL = "/penstock.v1.ModelService"

EMBED = Method(f"{_INFERENCE}/Embed", inference_pb2.EmbedRequest, inference_pb2.EmbedResponse)
CLASSIFY = Method(f"{_INFERENCE}/Classify", inference_pb2.ClassifyRequest, inference_pb2.ClassifyResponse)
TAG = Method(f"{_INFERENCE}/Tag", inference_pb2.TagRequest, inference_pb2.TagResponse)
RERANK = Method(f"{_INFERENCE}/Rerank", inference_pb2.RerankRequest, inference_pb2.RerankResponse)
TOKENIZE = Method(f"{_INFERENCE}/Tokenize", inference_pb2.TokenizeRequest, inference_pb2.TokenizeResponse)
STREAM = Method(f"{_INFERENCE}/Stream", inference_pb2.StreamRequest, inference_pb2.StreamResponse)

UPLOAD = Method(f"{_BULK}/Upload", bulk_pb2.UploadRequest, bulk_pb2.UploadResponse)
GET_UPLOAD = Method(f"{_BULK}/GetUpload", bulk_pb2.GetUploadRequest, bulk_pb2.GetUploadResponse)
CREATE_JOB = Method(f"{_BULK}/CreateJob", bulk_pb2.CreateJobRequest, bulk_pb2.CreateJobResponse)
GET_JOB = Method(f"{_BULK}/GetJob", bulk_pb2.GetJobRequest, bulk_pb2.GetJobResponse)
LIST_JOBS = Method(f"{_BULK}/ListJobs", bulk_pb2.ListJobsRequest, bulk_pb2.ListJobsResponse)
WATCH_JOB = Method(f"{_BULK}/WatchJob", bulk_pb2.WatchJobRequest, bulk_pb2.WatchJobResponse)
READ_RESULTS = Method(f"{_BULK}/ReadResults", bulk_pb2.ReadResultsRequest, bulk_pb2.ReadResultsResponse)
PAUSE_JOB = Method(f"{_BULK}/PauseJob", bulk_pb2.PauseJobRequest, bulk_pb2.PauseJobResponse)
RESUME_JOB = Method(f"{_BULK}/ResumeJob", bulk_pb2.ResumeJobRequest, bulk_pb2.ResumeJobResponse)
CANCEL_JOB = Method(f"{_BULK}/CancelJob", bulk_pb2.CancelJobRequest, bulk_pb2.CancelJobResponse)
RETRY_FAILED_ROWS = Method(
    f"{_BULK}/RetryFailedRows", bulk_pb2.RetryFailedRowsRequest, bulk_pb2.RetryFailedRowsResponse
)
DELETE_JOB = Method(f"{_BULK}/DeleteJob", bulk_pb2.DeleteJobRequest, bulk_pb2.DeleteJobResponse)

CREATE_SCHEDULE = Method(
    f"{_SCHEDULE}/CreateSchedule", schedule_pb2.CreateScheduleRequest, schedule_pb2.CreateScheduleResponse
)
GET_SCHEDULE = Method(
    f"{_SCHEDULE}/GetSchedule", schedule_pb2.GetScheduleRequest, schedule_pb2.GetScheduleResponse
)
LIST_SCHEDULES = Method(
    f"{_SCHEDULE}/ListSchedules", schedule_pb2.ListSchedulesRequest, schedule_pb2.ListSchedulesResponse
)
RUN_SCHEDULE = Method(
    f"{_SCHEDULE}/RunSchedule", schedule_pb2.RunScheduleRequest, schedule_pb2.RunScheduleResponse
)
PAUSE_SCHEDULE = Method(
    f"{_SCHEDULE}/PauseSchedule", schedule_pb2.PauseScheduleRequest, schedule_pb2.PauseScheduleResponse
)
RESUME_SCHEDULE = Method(
    f"{_SCHEDULE}/ResumeSchedule", schedule_pb2.ResumeScheduleRequest, schedule_pb2.ResumeScheduleResponse
)
DELETE_SCHEDULE = Method(
    f"{_SCHEDULE}/DeleteSchedule", schedule_pb2.DeleteScheduleRequest, schedule_pb2.DeleteScheduleResponse
)

LIST_MODELS = Method(f"{_MODEL}/ListModels", model_pb2.ListModelsRequest, model_pb2.ListModelsResponse)
GET_MODEL = Method(f"{_MODEL}/GetModel", model_pb2.GetModelRequest, model_pb2.GetModelResponse)

# grpc.health.v1.HealthCheckRequest is one string and its response one enum, both field 1: on the wire the
# same as these wrappers, which spares every client the package grpcio-health-checking.
HEALTH_CHECK = Method("/grpc.health.v1.Health/Check", wrappers_pb2.StringValue, wrappers_pb2.Int32Value)
