//! Executes operations on channels, and on allowances: through the admin socket of the running proxy or, if none is running, with a
//! payment service in this process on the same state directory.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::admin;
use crate::app::StandalonePayments;
use crate::channels::{
    AllowanceChange, AllowanceName, Operation, OperationReport, Permit2Allowance, Plan, SetAllowance,
};
use crate::config::Config;
use crate::payments::Listing;

/// A running proxy, or a payment service in this process.
pub(in crate::cli) enum Backend {
    Running(PathBuf),
    Local(Box<StandalonePayments>),
}

impl Backend {
    /// Finds the running proxy, or opens the journal and syncs with the chain. Only the latter needs a configuration.
    pub(in crate::cli) async fn open(
        directory: PathBuf,
        load: impl FnOnce() -> anyhow::Result<Option<Config>>,
    ) -> anyhow::Result<Self> {
        let socket = admin::socket(&directory);
        if admin::channels(&socket).await?.is_some() {
            return Ok(Self::Running(socket));
        }
        let Some(mut config) = load()? else {
            bail!("no proxy is running on {}; give its configuration with --config", directory.display());
        };
        config.state_dir = directory;
        Ok(Self::Local(Box::new(StandalonePayments::open(config).await?)))
    }

    pub(in crate::cli) async fn listing(&self) -> anyhow::Result<Listing> {
        match self {
            Self::Running(socket) => {
                admin::channels(socket).await?.context("the proxy has stopped in the meantime")
            }
            Self::Local(backend) => {
                backend.channels().payments().list().await.context("tollpass is shutting down")
            }
        }
    }

    pub(in crate::cli) async fn plan(&self, operation: &Operation) -> anyhow::Result<Plan> {
        match self {
            Self::Running(socket) => Ok(admin::plan(socket, operation).await?),
            Self::Local(backend) => Ok(backend.channels().plan(operation).await?),
        }
    }

    pub(in crate::cli) async fn operate(&self, operation: &Operation) -> anyhow::Result<OperationReport> {
        match self {
            Self::Running(socket) => Ok(admin::operate(socket, operation).await?),
            Self::Local(backend) => Ok(backend.channels().operate(operation.clone()).await?),
        }
    }

    pub(in crate::cli) async fn allowance(&self, name: &AllowanceName) -> anyhow::Result<Permit2Allowance> {
        match self {
            Self::Running(socket) => Ok(admin::allowance(socket, name).await?),
            Self::Local(backend) => Ok(backend.channels().allowance(*name).await?),
        }
    }

    pub(in crate::cli) async fn plan_allowance(
        &self,
        wanted: &Permit2Allowance,
    ) -> anyhow::Result<AllowanceChange> {
        match self {
            Self::Running(socket) => Ok(admin::plan_allowance(socket, wanted).await?),
            Self::Local(backend) => Ok(backend.channels().plan_allowance(*wanted).await?),
        }
    }

    pub(in crate::cli) async fn set_allowance(
        &self,
        wanted: &Permit2Allowance,
    ) -> anyhow::Result<SetAllowance> {
        match self {
            Self::Running(socket) => Ok(admin::set_allowance(socket, wanted).await?),
            Self::Local(backend) => Ok(backend.channels().set_allowance(*wanted).await?),
        }
    }

    /// Closes a payment service in this process.
    pub(in crate::cli) async fn close(self) {
        if let Self::Local(backend) = self {
            backend.close().await;
        }
    }
}
