//! ModifyVolume and DescribeVolumesModifications. A volume only grows; the rest is kept and shown.

use api::ec2::{
    DescribeVolumesModificationsRequest, DescribeVolumesModificationsResult, ModifyVolumeRequest, ModifyVolumeResult,
};
use domain::instances::{Volume, VolumeModification};
use wire::ServiceError;

use super::{positive, shape::integer};
use crate::{
    Call,
    ec2::{
        common::{begin, check_filters, find, matches_any, page, required, unsupported},
        instances::shape::time,
        volume_types,
    },
};

fn shape(volume: &Volume, modification: &VolumeModification) -> api::ec2::VolumeModification {
    let failed = volume.problem.is_some();
    api::ec2::VolumeModification {
        volume_id: Some(volume.volume_id.clone()),
        modification_state: Some(if failed { "failed" } else { "completed" }.into()),
        status_message: volume.problem.clone(),
        target_size: integer(volume.size_gib),
        target_iops: volume.iops.and_then(integer),
        target_volume_type: Some(volume.volume_type.clone()),
        target_throughput: volume.throughput.and_then(integer),
        target_multi_attach_enabled: Some(false),
        original_size: integer(modification.size_gib),
        original_iops: modification.iops.and_then(integer),
        original_volume_type: Some(modification.volume_type.clone()),
        original_throughput: modification.throughput.and_then(integer),
        original_multi_attach_enabled: Some(false),
        progress: Some(if failed { 0 } else { 100 }),
        start_time: Some(time(modification.at)),
        end_time: Some(time(modification.at)),
        operator: None,
    }
}

/// ModifyVolume.
pub(in crate::ec2) async fn modify(call: Call, input: ModifyVolumeRequest) -> Result<ModifyVolumeResult, ServiceError> {
    if input.multi_attach_enabled == Some(true) {
        return Err(unsupported("multi_attach_enabled"));
    }
    let id = required(input.volume_id, "VolumeId")?;
    let size = positive(input.size, "size")?;
    let (iops, throughput) = (positive(input.iops, "iops")?, positive(input.throughput, "throughput")?);
    let auth = begin(&call, &[format!("volume/{id}")], input.dry_run)?;
    let now = auth.now();
    let shown = auth
        .transact(|tx| {
            let known = find::<Volume>(&call, tx, &id)?;
            let mut volume = Volume::clone(&known);
            volume.size_gib = size.unwrap_or(known.size_gib);
            if volume.size_gib < known.size_gib {
                let text = "New size cannot be smaller than existing size";
                return Err(ServiceError::new("InvalidParameterValue", text));
            }
            let kind = input.volume_type.as_deref().unwrap_or(&known.volume_type);
            // What another type cannot have is not taken over to it.
            let same = kind == known.volume_type;
            let keep = |old: Option<u64>, applies: bool| old.filter(|_| same && applies);
            let performance = volume_types::check(
                Some(kind),
                volume.size_gib,
                iops.or(keep(known.iops, kind != "gp2")),
                throughput.or(keep(known.throughput, true)),
                kind,
            )?;
            volume.volume_type = performance.volume_type;
            volume.iops = performance.iops;
            volume.throughput = performance.throughput;
            let modification = VolumeModification {
                size_gib: known.size_gib,
                volume_type: known.volume_type.clone(),
                iops: known.iops,
                throughput: known.throughput,
                at: now,
            };
            let shown = shape(&volume, &modification);
            volume.modification = Some(modification);
            tx.put(volume);
            Ok(shown)
        })
        .await?;
    Ok(ModifyVolumeResult { volume_modification: Some(shown) })
}

/// DescribeVolumesModifications: the last one of each volume that was ever modified.
pub(in crate::ec2) async fn list(
    call: Call,
    input: DescribeVolumesModificationsRequest,
) -> Result<DescribeVolumesModificationsResult, ServiceError> {
    if input.include_managed_resources == Some(true) {
        return Err(unsupported("include_managed_resources"));
    }
    let auth = begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &["modification-state", "original-size", "target-size", "volume-id"])?;
    let view = auth.snapshot();
    let ids = input.volume_ids.unwrap_or_default();
    for id in &ids {
        let volume = find::<Volume>(&call, &view, id)?;
        if volume.modification.is_none() {
            let text = format!("Modification for volume '{id}' does not exist.");
            return Err(ServiceError::new("InvalidVolumeModification.NotFound", text));
        }
    }
    let mut found = Vec::new();
    for volume in view.list::<Volume>(&call.scope.prefix()) {
        let Some(modification) = &volume.modification else { continue };
        let shown = shape(&volume, modification);
        let wanted = (ids.is_empty() || ids.contains(&volume.volume_id))
            && filters.iter().all(|filter| {
                let value = match filter.name.as_deref() {
                    Some("modification-state") => shown.modification_state.clone(),
                    Some("original-size") => shown.original_size.map(|size| size.to_string()),
                    Some("target-size") => shown.target_size.map(|size| size.to_string()),
                    Some("volume-id") => shown.volume_id.clone(),
                    _ => None,
                };
                let known: Vec<String> = value.into_iter().collect();
                matches_any(filter.values.as_deref().unwrap_or_default(), &known)
            });
        if wanted {
            found.push((volume.volume_id.clone(), shown));
        }
    }
    let (shown, next_token) = page(&call, found, input.max_results, input.next_token.as_deref())?;
    Ok(DescribeVolumesModificationsResult { volumes_modifications: Some(shown), next_token })
}
