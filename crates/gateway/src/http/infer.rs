//! The Open Inference Protocol V2 under `/v2`. A model's name may hold slashes, percent-encoded or not.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use rialto_api::{
    inference::{
        Datatype, InferRequest, InferResponse, ModelMetadata, Ready, RequestTensor, ResponseTensor, ServerMetadata,
        TensorMetadata, values,
    },
    openai::Provider,
};
use rialto_protocol::{
    job::{self, Job, Tensor},
    manifest::{Format, TaskKind, TensorSpec},
    output::Output,
};

use super::{
    Shared,
    answer::{Source, finish_reason, order, require},
    auth::authenticate,
    error::Failure,
    serving::{Caller, Reply, serve},
};
use crate::{Error, book::Resolved, desk::Desk, store::now};

/// What a path under `/v2/models/` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Metadata,
    Ready,
    Infer,
}

/// Splits the rest of a path into the model's name, its version, and what is asked for.
fn split(rest: &str) -> (&str, Option<&str>, Asked) {
    let (rest, asked) = match rest.rsplit_once('/') {
        Some((head, "infer")) => (head, Asked::Infer),
        Some((head, "ready")) => (head, Asked::Ready),
        _ => (rest, Asked::Metadata),
    };
    match rest.rsplit_once("/versions/") {
        Some((name, version)) if !version.contains('/') => (name, Some(version), asked),
        _ => (rest, None, asked),
    }
}

fn find(desk: &Desk, name: &str, version: Option<&str>) -> Result<Resolved, Error> {
    let model = desk.resolve(name)?;
    match version {
        Some(version) if version != model.listing.manifest.tag => Err(Error::UnknownModel {
            model: format!("{name}, version {version}").chars().take(256).collect(),
        }),
        _ => Ok(model),
    }
}

pub(crate) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "rialto".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: Vec::new(),
    })
}

pub(crate) async fn get(State(desk): Shared, Path(rest): Path<String>, headers: HeaderMap) -> Response {
    let described = async {
        authenticate(&desk, &headers).await?;
        let (name, version, asked) = split(&rest);
        if asked == Asked::Infer {
            return Err(Error::MethodNotAllowed);
        }
        let model = find(&desk, name, version)?;
        if asked == Asked::Metadata {
            return Ok(Json(describe(name, &model)).into_response());
        }
        let ready = !desk.book.offers(&model.models, now()).is_empty();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        Ok((status, Json(Ready { ready })).into_response())
    };
    described
        .await
        .unwrap_or_else(|error: Error| Failure::from(error).for_inference().into_response())
}

fn describe(name: &str, model: &Resolved) -> ModelMetadata {
    let manifest = &model.listing.manifest;
    let tensors = |specs: &[TensorSpec]| {
        let tensor = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.clone(),
            datatype: to_public(spec.datatype).name().into(),
            shape: spec.shape.clone(),
        };
        specs.iter().map(tensor).collect()
    };
    ModelMetadata {
        name: name.to_owned(),
        versions: vec![manifest.tag.clone()],
        platform: match manifest.format {
            Format::Gguf => "gguf".into(),
            Format::Onnx => "onnx".into(),
            Format::Safetensors => "safetensors".into(),
        },
        inputs: tensors(&manifest.inputs),
        outputs: tensors(&manifest.outputs),
    }
}

pub(crate) async fn post(State(desk): Shared, Path(rest): Path<String>, request: Request) -> Response {
    if split(&rest).2 != Asked::Infer {
        return Failure::from(Error::MethodNotAllowed).for_inference().into_response();
    }
    serve(desk, request, "infer", move |desk, caller, body| {
        answer(desk, caller, body, rest)
    })
    .await
}

async fn answer(desk: Arc<Desk>, caller: Caller, body: Bytes, rest: String) -> Result<Reply, Error> {
    let (name, version, _) = split(&rest);
    let request = InferRequest::parse(&body)?;
    drop(body);
    let model = find(&desk, name, version)?;
    require(name, model.listing.manifest.task, &[TaskKind::Predict])?;
    let tag = model.listing.manifest.tag.clone();
    let job = Job::Predict {
        inputs: request.inputs.into_iter().map(to_job).collect(),
        outputs: request.outputs,
    };
    let order = order(&desk, model, job, &Provider::default(), &caller)?;
    let mut purchase = desk.buy(order).await?;
    caller.presence.first_output();
    let (outputs, bill) = purchase.collect().await?;
    let source = Source::of(&purchase);
    desk.metrics.bill(&bill);
    finish_reason(&bill)?;
    let outputs = tensors(outputs)?;
    caller.presence.ended("ok");
    let response = InferResponse {
        model_name: name.to_owned(),
        model_version: tag,
        id: request.id,
        outputs,
        parameters: Some(source.trade(&bill)),
    };
    Ok(Reply::json(&response, source.final_headers(&bill)))
}

fn to_job(tensor: RequestTensor) -> Tensor {
    Tensor {
        name: tensor.name,
        datatype: match tensor.datatype {
            Datatype::Bool => job::Datatype::Bool,
            Datatype::Uint8 => job::Datatype::Uint8,
            Datatype::Int32 => job::Datatype::Int32,
            Datatype::Int64 => job::Datatype::Int64,
            Datatype::Fp32 => job::Datatype::Fp32,
            Datatype::Fp64 => job::Datatype::Fp64,
            Datatype::Bytes => job::Datatype::Bytes,
            Datatype::Int8 => job::Datatype::Int8,
            Datatype::Int16 => job::Datatype::Int16,
            Datatype::Uint16 => job::Datatype::Uint16,
            Datatype::Uint32 => job::Datatype::Uint32,
            Datatype::Uint64 => job::Datatype::Uint64,
            Datatype::Fp16 => job::Datatype::Fp16,
        },
        shape: tensor.shape,
        data: tensor.data,
    }
}

fn to_public(datatype: job::Datatype) -> Datatype {
    match datatype {
        job::Datatype::Bool => Datatype::Bool,
        job::Datatype::Uint8 => Datatype::Uint8,
        job::Datatype::Int32 => Datatype::Int32,
        job::Datatype::Int64 => Datatype::Int64,
        job::Datatype::Fp32 => Datatype::Fp32,
        job::Datatype::Fp64 => Datatype::Fp64,
        job::Datatype::Bytes => Datatype::Bytes,
        job::Datatype::Int8 => Datatype::Int8,
        job::Datatype::Int16 => Datatype::Int16,
        job::Datatype::Uint16 => Datatype::Uint16,
        job::Datatype::Uint32 => Datatype::Uint32,
        job::Datatype::Uint64 => Datatype::Uint64,
        job::Datatype::Fp16 => Datatype::Fp16,
    }
}

/// The tensors of an answer, each checked against its own shape: a provider's bytes are not believed.
fn tensors(outputs: Vec<Output>) -> Result<Vec<ResponseTensor>, Error> {
    let malformed = || Error::ProviderFailed {
        reason: "its answer is malformed".into(),
        charged: true,
    };
    let mut tensors = Vec::new();
    for output in outputs {
        let Output::Tensors(list) = output else {
            return Err(malformed());
        };
        for tensor in list {
            tensor.check().map_err(|_| malformed())?;
            let datatype = to_public(tensor.datatype);
            tensors.push(ResponseTensor {
                data: values(datatype, &tensor.data).ok_or_else(malformed)?,
                name: tensor.name,
                shape: tensor.shape,
                datatype: datatype.name().into(),
            });
        }
    }
    if tensors.is_empty() {
        Err(malformed())
    } else {
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_may_hold_slashes() {
        for (rest, expected) in [
            ("rialto/cancer:v1", ("rialto/cancer:v1", None, Asked::Metadata)),
            ("rialto/cancer:v1/infer", ("rialto/cancer:v1", None, Asked::Infer)),
            ("rialto/cancer:v1/ready", ("rialto/cancer:v1", None, Asked::Ready)),
            ("a/b:c/versions/c/infer", ("a/b:c", Some("c"), Asked::Infer)),
            ("plain/versions/c", ("plain", Some("c"), Asked::Metadata)),
            ("infer", ("infer", None, Asked::Metadata)),
        ] {
            assert_eq!(split(rest), expected, "{rest}");
        }
    }

    #[test]
    fn a_malformed_tensor_of_a_provider_is_not_passed_on() {
        let tensor = Tensor {
            name: "y".into(),
            datatype: job::Datatype::Fp32,
            shape: vec![2],
            data: vec![0; 4],
        };
        assert!(tensors(vec![Output::Tensors(vec![tensor.clone()])]).is_err());
        assert!(tensors(Vec::new()).is_err());
        let good = Tensor {
            shape: vec![1],
            ..tensor
        };
        let read = tensors(vec![Output::Tensors(vec![good])]).unwrap();
        assert_eq!(
            (read[0].datatype.as_str(), read[0].data[0].as_f64()),
            ("FP32", Some(0.0))
        );
    }
}
