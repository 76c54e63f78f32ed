//! `/v1/files`.

use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, Uri, header},
    response::Response,
};
use rialto_api::openai::{FileDeleted, FileObject, Page};
use tokio_util::io::ReaderStream;

use super::{
    Shared,
    auth::authenticate,
    error::{Failure, build},
    query::Query,
    upload,
};
use crate::{
    Error,
    desk::Desk,
    store::{FileRow, KeyRow, now},
};

/// Files on a page when nobody says, and at most.
const LONGEST_PAGE: u32 = 10_000;

/// `POST /v1/files`.
pub(crate) async fn create(State(desk): Shared, request: Request) -> Result<Json<FileObject>, Failure> {
    let (parts, body) = request.into_parts();
    let key = authenticate(&desk, &parts.headers).await?;
    let place = desk.batches.uploads.clone().try_acquire_owned();
    let _place = place.map_err(|_| Error::Overloaded)?;
    let id = format!("file-{}", hex::encode(rand::random::<[u8; 12]>()));
    let received = upload::receive(&desk, &parts.headers, body, &id).await;
    let Ok(received) = received else {
        desk.batches.folder.give_up(&id).await;
        return Err(received.err().unwrap_or(Error::BodyMissing).into());
    };
    let created_at = now();
    let lifetime = received.seconds.unwrap_or(desk.config.batches.file_seconds);
    let row = FileRow {
        id,
        key: key.id,
        purpose: "batch".into(),
        name: received.name,
        bytes: received.bytes,
        created_at,
        expires_at: Some(created_at.saturating_add(lifetime)),
    };
    let most = desk.config.batches.max_key_bytes;
    if !desk.store.add_file(&row, most).await? {
        desk.batches.folder.remove(&row.id).await;
        return Err(Error::TooManyFiles { most }.into());
    }
    Ok(Json(show(row)))
}

/// `GET /v1/files`.
pub(crate) async fn list(State(desk): Shared, uri: Uri, headers: HeaderMap) -> Result<Json<Page<FileObject>>, Failure> {
    let key = authenticate(&desk, &headers).await?;
    let query = Query::of(&uri);
    let wanted = query.page(LONGEST_PAGE, LONGEST_PAGE)?;
    let (rows, more) = desk.store.files(&key.id, query.get("purpose"), &wanted, now()).await?;
    let list = rows.into_iter().map(show).collect();
    Ok(Json(Page::new(list, more, |file: &FileObject| &file.id)))
}

/// `GET /v1/files/{id}`.
pub(crate) async fn one(
    State(desk): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<FileObject>, Failure> {
    let key = authenticate(&desk, &headers).await?;
    Ok(Json(show(find(&desk, &key, &id).await?)))
}

/// `GET /v1/files/{id}/content`.
pub(crate) async fn content(
    State(desk): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let key = authenticate(&desk, &headers).await?;
    let row = find(&desk, &key, &id).await?;
    let file = desk.batches.folder.read(&row.id).await?;
    let headers = [
        (header::CONTENT_TYPE.to_string(), "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH.to_string(), row.bytes.to_string()),
    ];
    Ok(build(200, &headers, Body::from_stream(ReaderStream::new(file))))
}

/// `DELETE /v1/files/{id}`.
pub(crate) async fn delete(
    State(desk): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<FileDeleted>, Failure> {
    let key = authenticate(&desk, &headers).await?;
    let row = find(&desk, &key, &id).await?;
    if !desk.store.delete_file(&key.id, &row.id).await? {
        return Err(Error::FileInUse.into());
    }
    desk.batches.folder.remove(&row.id).await;
    Ok(Json(FileDeleted {
        id: row.id,
        object: "file".into(),
        deleted: true,
    }))
}

async fn find(desk: &Desk, key: &KeyRow, id: &str) -> Result<FileRow, Error> {
    desk.store.file(&key.id, id, now()).await?.ok_or_else(|| missing(id))
}

/// There is no such file, or it is another key's.
pub(super) fn missing(id: &str) -> Error {
    Error::NoSuchObject {
        kind: "file",
        id: id.chars().take(64).collect(),
    }
}

fn show(row: FileRow) -> FileObject {
    FileObject {
        id: row.id,
        object: "file".into(),
        bytes: row.bytes,
        created_at: row.created_at,
        expires_at: row.expires_at,
        filename: row.name,
        purpose: row.purpose,
        status: "processed".into(),
    }
}
